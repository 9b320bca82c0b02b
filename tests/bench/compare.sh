#!/bin/bash
# SPDX-License-Identifier: MIT
# Measures gkproxy's data paths beside nbd.ko, in one virtual machine.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

usage() {
	cat <<-'END'
	usage: tests/bench/compare.sh [-k KERNEL] [--quick] [--rounds N] [--seconds S] [--jobs REGEX]
	                              [--icount] [--sizes] [--tls] [--json FILE]

	Measures gkproxy's data paths beside nbd.ko with nbd-client, in one virtual machine, on the same nbdkit
	memory server over TCP loopback, with the same fio jobs. The subjects of a job run one after the other in
	every round. Prints a table; the numbers are medians of the rounds, a ratio is taken within its round.

	  -k KERNEL    as for tests/vm/run.sh, default stock. Zero copy is measured as group on patched, as
	               registered on mainline, not at all on stock, and elsewhere as what gkproxy chooses
	  --quick      one round of short runs of a few jobs: shows that all works, measures little
	  --rounds N   default 3
	  --seconds S  of each run, default 1, besides 0.3 to warm up
	  --jobs REGEX only these
	  --icount     counts instructions instead, in a machine whose clock is the number of instructions: for
	               each MB those of the subject, of fio, of the server
	  --sizes      other jobs, 4K to 256K at random, depth 8, to find out from which size on zero copy pays
	               (zero_copy_threshold): data path copy, the zero copy path with every request sent and
	               received in place, and the same path with every request staged
	  --tls        all subjects over TLS, one queue each: nbdko is nbd-client's TLS, which passes through a
	               process of its own (whose CPU time is not among the numbers); gkproxy-user TLS in user space,
	               the others the kernel's TLS
	  --json FILE  writes the table there, too: markdown.sh makes one for a README of it

	A complete run takes 7 to 11 minutes on a quiet machine.
	END
}

die() {
	echo "tests/bench: $*" >&2
	exit 1
}

bench_dir=$(dirname "$(realpath "$0")")
top=$(realpath "$bench_dir/../..")
command="tests/bench/compare.sh $*"
kernel=stock rounds=3 seconds=1 jobs=. icount='' sizes='' tls='' json=''
while [ $# -gt 0 ]; do
	case $1 in
	-k) kernel=${2:?} && shift ;;
	--quick) rounds=1 jobs='^(4k-rand(read|write)-qd(1|32)|128k-read-qd8|512k-(read|write)-qd8)$' ;;
	--rounds) rounds=${2:?} && shift ;;
	--seconds) seconds=${2:?} && shift ;;
	--jobs) jobs=${2:?} && shift ;;
	--icount) icount=1 ;;
	--sizes) sizes=1 ;;
	--tls) tls=1 ;;
	--json) json=${2:?} && shift ;;
	-h | --help) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
	shift
done
case $kernel in
stock) zc='' ;;
mainline) zc=registered ;;
patched | patched-debug) zc=group ;;
*) zc=auto ;;
esac
[ "$rounds" -ge 1 ] || die "--rounds: at least 1"

tmp=$(mktemp -d "${TMPDIR:-/tmp}/gkproxy-bench.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

options=(-k "$kernel" -m 2048 -f "$bench_dir/guest.sh")
if [ -n "$icount" ]; then
	rounds=0
	options+=(-i)
else
	options+=(-c 2 -b)
fi
"$top/deploy/install-deps.sh" bench
"${CC:-cc}" -O2 -o "$tmp/cpu_ns" "$bench_dir/cpu_ns.c"
options+=(-p strace -p "$tmp/cpu_ns")
# 15 jobs, 6 subjects, and as much again for starting and taking stock.
options+=(-t $((1800 + (rounds + 1) * 15 * 6 * (seconds + 8) * 2)))

export GK_BENCH_ROUNDS=$rounds GK_BENCH_SECONDS=$seconds GK_BENCH_JOBS=$jobs GK_BENCH_ZC=$zc GK_BENCH_SIZES=$sizes \
	GK_BENCH_TLS=$tls
"$top/tests/vm/run.sh" "${options[@]}" 'bash tests/bench/guest.sh' </dev/null 2>&1 |
	tee >(grep --line-buffered -v '^@@ ' >&2) >"$tmp/output" || die "the virtual machine failed"
sed -n 's/^@@ //p' "$tmp/output" | jq -c -f "$bench_dir/measurement.jq" >"$tmp/all"
release=$(jq -rs 'map(.release // empty)[0]' "$tmp/all")
jq -e 'select(.job)' "$tmp/all" >/dev/null || die "no job is called like '$jobs'"

echo
if [ -n "$icount" ]; then
	jq -s --arg kernel "$kernel" --arg release "$release" --arg command "$command" '{kernel: $kernel, release: $release, command: $command, rounds: 1,
		note: "one CPU; copies count 0.13 M/MB to or from user memory, 0.39 M/MB within the kernel: see README.md",
		rows: map(select(.job))}' "$tmp/all" >"$tmp/report"
	columns="job=job subject=subject instructions_per_mb=own/MB fio_instructions_per_mb=fio/MB \
server_instructions_per_mb=server/MB total_instructions_per_mb=total/MB instructions_per_io=own/io"
	note="Instructions. own: of gkproxy's process, or of the kernel's workers for nbd.ko, which sends within fio.
total: fio, gkproxy and the kernel's workers. Copies: 0.13 million per MB to or from user memory, 0.39 within the
kernel; hardware makes no such difference (tests/bench/README.md)."
else
	calls=$(jq -rs 'map(.how // empty) | unique | join(", ")' "$tmp/all")
	jq -s --arg base nbdko-1 --arg twin "${zc:+$zc/copy}" --argjson by_latency true --arg kernel "$kernel" \
		--arg release "$release" --arg command "$command" --argjson seconds "$seconds" --arg note "system calls counted by: $calls" \
		-f "$bench_dir/report.jq" "$tmp/all" >"$tmp/report"
	columns="job=job subject=subject iops=IOPS mbps=MB/s p50_us=p50-us p99_us=p99-us cpu_us_per_io=CPU-us/io \
total_cpu_us_per_io=total-us/io cpu_over_twin=CPU/copy syscalls_per_io=calls/io enters_per_io=enters/io ratio=ratio"
	note="Medians of $rounds round(s). ratio: throughput over nbdko-1's in the same round; at depth 1, its median
latency over ours. CPU: user and system time of gkproxy's process; for nbd.ko that of the kernel's workers, which
leaves out what it sends within the process that submits. total: fio, the subject and the kernel's workers.
CPU/copy: over that of data path copy with as many queues, in the same round. calls, enters: system calls and
turns of the queue loops, in a run of their own."
fi
[ -z "$json" ] || cp "$tmp/report" "$json"
jq -r --arg columns "$columns" -f "$bench_dir/table.jq" "$tmp/report"
printf '\nKernel %s (%s). %s\n' "$kernel" "$release" "$note"
