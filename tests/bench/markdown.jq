# SPDX-License-Identifier: MIT
# A report of compare.sh or wire.sh as a table for a README: jq -r -f markdown.jq REPORT.

# Three significant digits; -: not measured.
def cell:
  if . == null then "-"
  elif type != "number" or . == 0 then tostring
  elif fabs >= 100000 then "\(. / 10000 | round / 100) M"
  elif fabs >= 100 then round | tostring
  else pow(10; 2 - (fabs | log10 | floor)) as $f | . * $f | round / $f | tostring end;

def first_seen: reduce .[] as $x ([]; if index([$x]) then . else . + [$x] end);
def line: "| " + join(" | ") + " |";

# [heading, what stands there for the rows of a job] for each column.
def table($columns):
  ([.rows[].job] | first_seen) as $jobs
  | (.rows | map({key: "\(.job) \(.subject)", value: .}) | from_entries) as $at
  | (["job"] + ($columns | map(.heading)) | line),
    (["---"] + ($columns | map("---")) | line),
    ($jobs[] as $job
     | [$job] + ($columns | map(. as $c | [$c.subjects[] as $s | ($at["\($job) \($s)"] // {})[$c.fields[]] | cell]
                                | join(", ")))
     | line);

([.rows[].subject] | first_seen) as $subjects
| ($subjects | map(select(startswith("nbdko") | not))) as $ours
# compare.sh: stock, and its version; wire.sh: the version, and when it was built.
| "`\(.command | sub(" --json [^ ]+"; ""))`, kernel \(if $subjects | index("nbdko-1") then .release else .kernel end):",
  "",
  if any(.rows[]; has("instructions_per_mb")) then
    table($subjects | map({heading: "\(.): total, own", subjects: [.],
                           fields: ["total_instructions_per_mb", "instructions_per_mb"]})),
    "", "Instructions per MB; total: fio, subject and the kernel's workers. " + .note
  elif $subjects | index("nbdko-1") then
    ([{heading: "daemon's CPU over copy's: \($ours | map(.[-1:]) | unique | join(", "))", fields: ["cpu_over_twin"],
       subjects: ($ours | map(select(test("group|registered"))))}
      | select(.subjects != [])]) as $twins
    | table([{heading: "nbd.ko 1: MB/s, p50 us, p99 us", subjects: ["nbdko-1"], fields: ["mbps", "p50_us", "p99_us"]}]
            + ($subjects | map(select(. != "nbdko-1") | {heading: ., subjects: [.], fields: ["ratio", "total_cpu_ratio"]}))
            + $twins),
    "",
    "Medians of \(.rounds) rounds of \(.seconds) s. First throughput over that of nbd.ko with one connection in the same round (at depth 1 its median latency over ours), then CPU of fio, subject and kernel workers per request over nbd.ko's.",
    "",
    table($ours | map({heading: "\(.): MB/s, p50 us, p99 us, daemon's CPU us/io\(if endswith("-1") then ", calls/io, enters/io" else "" end)",
                       subjects: [.],
                       fields: (["mbps", "p50_us", "p99_us", "cpu_us_per_io"]
                                + if endswith("-1") then ["syscalls_per_io", "enters_per_io"] else [] end)})),
    "",
    "calls, enters: of gkproxy's process, in a run of their own; \(.note)."
  elif $subjects | index("nbdclient-1") then
    table([{heading: "nbd-client: MB/s, CPU us/io", subjects: ["nbdclient-1"], fields: ["mbps", "cpu_us_per_io"]},
           {heading: "gkproxy: MB/s, CPU us/io", subjects: ["gkproxy-user-1"], fields: ["mbps", "cpu_us_per_io"]},
           {heading: "gkproxy over nbd-client: throughput, CPU", subjects: ["gkproxy-user-1"], fields: ["ratio", "cpu_ratio"]},
           {heading: "nbdcopy over nbd-client: throughput, CPU", subjects: ["nbdcopy-1"], fields: ["ratio", "cpu_ratio"]}]),
    "",
    "Medians of \(.rounds) rounds of \(.seconds) s, ratios within a round. " + .note + "."
  else
    table([{heading: "libnbd: MB/s, CPU us/io, calls/io", subjects: ["libnbd-fio-1"],
            fields: ["mbps", "cpu_us_per_io", "syscalls_per_io"]},
           {heading: "gkproxy: CPU us/io, calls/io", subjects: ["gkproxy-copy-1"],
            fields: ["cpu_us_per_io", "syscalls_per_io"]},
           {heading: "gkproxy over libnbd: throughput, CPU", subjects: ["gkproxy-copy-1"],
            fields: ["ratio", "cpu_ratio"]},
           {heading: "nbdcopy over libnbd: throughput, CPU", subjects: ["nbdcopy-1"],
            fields: ["ratio", "cpu_ratio"]}]),
    "",
    "Medians of \(.rounds) rounds of \(.seconds) s, ratios within a round. " + .note + "."
  end
