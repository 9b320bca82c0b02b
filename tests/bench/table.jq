# SPDX-License-Identifier: MIT
# What report.jq made, as a table for people: jq -r -f table.jq. $columns: "field=heading ...".

def right($n): tostring | (" " * ([$n - length, 0] | max) // "") + .;
def left($n): tostring | . + (" " * ([$n - length, 0] | max) // "");

# -: not measured, or it has no meaning there.
def cell:
  if . == null then "-"
  elif type == "string" then .
  elif . >= 100 then round | tostring
  else . * 100 | round / 100 | tostring end;

[$columns | split(" ")[] | split("=") | {field: .[0], heading: .[1]}] as $c
| [[$c[].heading]] + [.rows[] as $row | [$c[] as $x | $row[$x.field] | cell]]
| . as $lines
| [range($c | length) as $i | [$lines[][$i] | length] | max] as $widths
| reduce range($lines | length) as $l ([];
    . + (if $l > 1 and $lines[$l][0] != $lines[$l - 1][0] then [""] else [] end)
    + [[range($c | length) as $i | $lines[$l][$i]
        | if $i < 2 then left($widths[$i]) else right($widths[$i]) end] | join("  ")])
| .[]
