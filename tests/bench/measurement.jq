# SPDX-License-Identifier: MIT
# A measurement of report.jq from what guest.sh saw of one run: fio's report, the blocks that the device moved in the
# run and before it, to warm up, and the run times of gkproxy and of the kernel's workers meanwhile.
#
# What the subject is charged with: gkproxy's process; for nbd.ko the kernel's workers, which is not all: it sends in the
# process that submits. total_cpu_us_per_io has this too: fio's process, the subject and the kernel's workers, for all
# subjects alike.

if .fio then
  . as {$round, $job, $subject, $bytes, $n, $daemon_ns, $kernel_ns}
  | .fio.jobs[0]
  | ((.usr_cpu + .sys_cpu) * .job_runtime * 10 / .mixed.total_ios) as $fio_us
  | .mixed
  | {
      round: $round,
      job: $job,
      subject: $subject,
      iops: (.io_bytes * 1000 / .runtime / $bytes),
      mbps: (.io_bytes / 1000 / .runtime),
      p50_us: (.lat_ns.percentile["50.000000"] / 1000),
      p99_us: (.lat_ns.percentile["99.000000"] / 1000),
      cpu_us_per_io: ((if $subject | startswith("nbdko") then $kernel_ns else $daemon_ns end) / 1000 / $n),
      total_cpu_us_per_io: ($fio_us + ($daemon_ns + $kernel_ns) / 1000 / $n)
    }
else . end
