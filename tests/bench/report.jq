# SPDX-License-Identifier: MIT
# Rows from measurements: medians over the rounds, and ratios to the base subject, each taken within
# its round before the median. jq -s -f report.jq with
#
#   $base         the subject that the others are compared with
#   $twin         "A/B": a subject whose name has A in it is also compared with the one that has B
#   $by_latency   true: at depth 1 the ratio is that of the median latencies
#   $kernel, $release, $command, $seconds (of a run), $note   go into the head
#
# A measurement is {round, job, subject, iops, mbps, p50_us, p99_us, cpu_us_per_io, ...}. What is counted
# once, outside the rounds, comes as {job, subject, once: {...}}.

def median:
  map(select(. != null)) | sort
  | if length == 0 then null
    elif length % 2 == 1 then .[(length - 1) / 2]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;

# Four significant digits.
def short:
  if type != "number" or . == 0 then .
  else pow(10; 3 - (fabs | log10 | floor)) as $f | (. * $f | round) / $f end;

def over($a; $b): if $a == null or $b == null or $b == 0 then null else $a / $b end;

def first_seen(f): reduce .[] as $x ([]; ($x | f) as $k | if index([$k]) then . else . + [$k] end);

($twin | split("/")) as [$zc, $copy]
| map(select(.round)) as $all
| map(select(.once)) as $onces
| ($all | map({key: "\(.round) \(.job) \(.subject)", value: .}) | from_entries) as $at
| {
    kernel: $kernel,
    release: $release,
    command: $command,
    note: $note,
    rounds: ($all | map(.round) | max),
    seconds: $seconds,
    rows: [
      $all | first_seen(.job)[] as $job
      | [.[] | select(.job == $job).subject] | unique
      # The base, then the others by their number and name; nbd.ko before gkproxy.
      | sort_by([. != $base, .[-1:], sub("^nbdko"; "")])[] as $subject
      | [$all[] | select(.job == $job and .subject == $subject)] as $runs
      | def base: $at["\(.round) \(.job) \($base)"];
        def twin: if $zc and ($subject | contains($zc))
                  then $at["\(.round) \(.job) \($subject | sub($zc; $copy))"] else null end;
        {
          job: $job,
          subject: $subject,
          iops: ($runs | map(.iops) | median | short),
          mbps: ($runs | map(.mbps) | median | short),
          p50_us: ($runs | map(.p50_us) | median | short),
          p99_us: ($runs | map(.p99_us) | median | short),
          cpu_us_per_io: ($runs | map(.cpu_us_per_io) | median | short),
          ratio: ($runs | map(if $by_latency and ($job | endswith("-qd1"))
                              then over(base.p50_us; .p50_us) else over(.mbps; base.mbps) end)
                  | median | short),
          cpu_ratio: ($runs | map(over(.cpu_us_per_io; base.cpu_us_per_io)) | median | short),
          cpu_over_twin: ($runs | map(over(.cpu_us_per_io; twin.cpu_us_per_io)) | median | short),
          cpu_us_per_mb: ($runs | map(over(.cpu_us_per_io * .iops; .mbps)) | median | short),
          enters_per_io: ($runs | map(.enters_per_io) | median | short),
          total_cpu_ratio: ($runs | map(over(.total_cpu_us_per_io; base.total_cpu_us_per_io)) | median | short),
          total_cpu_us_per_io: ($runs | map(.total_cpu_us_per_io) | median | short),
          ratio_min: ($runs | map(over(.mbps; base.mbps)) | min | short),
          ratio_max: ($runs | map(over(.mbps; base.mbps)) | max | short)
        }
        + ([$onces[] | select(.job == $job and .subject == $subject) | .once | map_values(short)] | add // {})
        | with_entries(select(.value != null or (.key | IN("p50_us", "p99_us", "cpu_us_per_io", "ratio"))))
    ]
  }
