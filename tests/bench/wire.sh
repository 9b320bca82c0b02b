#!/bin/bash
# SPDX-License-Identifier: MIT
# Measures the proxy's queue loop beside libnbd, natively.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

usage() {
	cat <<-'END'
	usage: tests/bench/wire.sh [--tls] [--quick] [--rounds N] [--seconds S] [--size MIB] [--jobs REGEX]
	                           [--json FILE]

	Measures the proxy's queue loop (data path copy, requests from user memory in place of ublk) beside
	fio's nbd engine (libnbd) and nbdcopy, over one TCP connection on this host, without ublk and without a
	virtual machine: against nbdkit's memory plugin and against a server that does nothing. The subjects of
	a job run one after the other in every round. Prints a table; the numbers are medians of the rounds.

	  --tls        TLS instead: the queue loop with TLS in user space beside nbdcopy (libnbd), and beside itself in
	               nbd.ko's place behind the proxy process with which nbd-client does TLS
	  --quick      one round of short runs of a few jobs: shows that all works, measures little
	  --rounds N   default 3
	  --seconds S  of each run, default 2, besides 0.5 to warm up
	  --size MIB   of the export, which nbdcopy copies once in a run; default 256
	  --jobs REGEX only these
	  --json FILE  writes the table there, too: markdown.sh makes one for a README of it

	The client runs on the first CPU, the server on the others; with --tls, where one of the clients is two
	processes, all run on all. Programs are taken from $GK_BUILD (default:
	build/ in the source tree), where they are brought up to date first. A complete run takes about 12 minutes on
	a quiet machine.
	END
}

die() {
	echo "tests/bench: $*" >&2
	exit 1
}

bench_dir=$(dirname "$(realpath "$0")")
top=$(realpath "$bench_dir/../..")
build=${GK_BUILD:-$top/build}
command="tests/bench/wire.sh $*"
rounds=3 seconds=2 warm_up=0.5 warm_up_ms=500 export_mib=256 jobs_wanted=. json='' quick='' tls=''
while [ $# -gt 0 ]; do
	case $1 in
	--tls) tls=1 ;;
	--quick) quick=1 rounds=1 seconds=1 warm_up=0.2 warm_up_ms=200 export_mib=64 ;;
	--rounds) rounds=${2:?} && shift ;;
	--seconds) seconds=${2:?} && shift ;;
	--size) export_mib=${2:?} && shift ;;
	--jobs) jobs_wanted=${2:?} && shift ;;
	--json) json=${2:?} && shift ;;
	-h | --help) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
	shift
done

tmp=$(mktemp -d "${TMPDIR:-/tmp}/gkproxy-bench.XXXXXX")
shm=$(mktemp -d /dev/shm/gkproxy-bench.XXXXXX)
server_pids=()
clean_up() {
	local status=$?

	[ ${#server_pids[@]} = 0 ] || kill "${server_pids[@]}" 2>/dev/null || true
	rm -rf "$tmp" "$shm"
	exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$top/deploy/install-deps.sh" bench
{
	[ -e "$build/Makefile" ] || [ -e "$build/build.ninja" ] || cmake -S "$top" -B "$build"
	cmake --build "$build" --target wire_bench null_server in_nbd_kos_place cpu_ns -j "$(nproc)"
} >"$tmp/build.log" 2>&1 || {
	tail -n 30 "$tmp/build.log" >&2
	die "the programs do not build in $build"
}
wire_bench=$build/tests/bench/wire_bench
null_server=$build/tests/bench/null_server
cpu_ns=$build/tests/bench/cpu_ns

client=(taskset -c 0)
server=()
[ "$(nproc)" = 1 ] || server=(taskset -c "1-$(($(nproc) - 1))")
[ "$(nproc)" != 1 ] || client=()
[ -z "$tls" ] || client=() server=()

# ---- servers ----

export_bytes=$((export_mib << 20))
declare -A uris

answers() {
	nbdinfo --size "$1" >/dev/null 2>&1
}

# start_null QUERY OPTION...
start_null() {
	local deadline=$((SECONDS + 10)) query=$1 uri; shift

	"${server[@]}" "$null_server" -p 0 "$@" >"$tmp/null" &
	server_pids+=($!)
	until uri=$(sed -n 's/^listening: //p' "$tmp/null") && [ -n "$uri" ]; do
		[ "$SECONDS" -lt "$deadline" ] || die "null_server does not start"
		sleep 0.02
	done
	uris[null]=$uri$export_bytes$query
}

# start_nbdkit WHICH QUERY OPTION...: nbdkit cannot be asked which port it found: a taken one makes it end,
# and another is tried.
start_nbdkit() {
	local which=$1 query=$2; shift 2
	local deadline=$((SECONDS + 20)) pid port

	for _ in {1..20}; do
		port=$((20000 + RANDOM % 12000))
		"${server[@]}" nbdkit -f -i 127.0.0.1 -p "$port" "$@" memory "$export_bytes" 2>"$tmp/nbdkit" &
		pid=$!
		uris[$which]=nbd${tls:+s}://127.0.0.1:$port/$query
		until answers "${uris[$which]}"; do
			kill -0 "$pid" 2>/dev/null || continue 2
			[ "$SECONDS" -lt "$deadline" ] || die "nbdkit does not answer: $(cat "$tmp/nbdkit")"
			sleep 0.02
		done
		server_pids+=("$pid")
		return
	done
	die "nbdkit does not start: $(cat "$tmp/nbdkit")"
}

# Both only with TLS; nbdkit only for clients that the authority vouches for.
start_over_tls() {
	# shellcheck disable=SC2034 # tls.sh wants it
	local dir=$tmp

	# shellcheck source=tests/lib/tls.sh
	. "$top/tests/lib/tls.sh"
	new_ca ca
	new_cert ca server
	new_cert ca client
	server_files ca server "$tmp/server"
	mkdir "$tmp/client"
	cp "$pki/ca.pem" "$tmp/client/ca-cert.pem"
	cp "$pki/client.pem" "$tmp/client/client-cert.pem"
	cp "$pki/client.key" "$tmp/client/client-key.pem"
	start_null "?tls-certificates=$tmp/client" -c "$pki/server.pem" -k "$pki/server.key"
	start_nbdkit nbdkit "?tls-certificates=$tmp/client" --tls=require --tls-certificates="$tmp/server" --tls-verify-peer
}

# ---- one run of each subject: URI RW BYTES DEPTH; prints a measurement ----

# op_of RW: read or write.
op_of() {
	echo "${1#rand}"
}

sequential_flag() {
	[ "${1#rand}" != "$1" ] || echo -S
}

run_gkproxy() {
	local uri=$1 rw=$2 bs=$3 qd=$4 flag

	flag=$(sequential_flag "$rw")
	"${client[@]}" "$wire_bench" -u "$uri" -o "$(op_of "$rw")" -b "$bs" -d "$qd" ${flag:+"$flag"} \
		-t "$seconds" -w "$warm_up"
}

# As many bytes a second as nbd-client's proxy process lets through: in nbd.ko's place, at the other end of its
# socket pair, is our queue loop. CPU time is that of both; the proxy, which starts a session of its own, is known
# by its arguments.
run_nbdclient() {
	local port=${1#*:*:} name rw=$2 bs=$3 qd=$4 flag

	name=${port#*/} name=${name%%\?*}
	port=${port%%/*}
	flag=$(sequential_flag "$rw")
	cat >"$tmp/in-nbd-kos-place" <<-END
		proxy=\$(pgrep -P 1 -n -f "^nbd-client .* $port /dev/null")
		before="\$("$cpu_ns" "\$proxy") \$(date +%s%N)"
		"$wire_bench" -f 9 -s "$export_bytes" -o "$(op_of "$rw")" -b "$bs" -d "$qd" ${flag:+"$flag"} \
			-t "$seconds" -w "$warm_up" >"$tmp/in-nbd-kos-place.json" || exit
		echo "\$before \$("$cpu_ns" "\$proxy") \$(date +%s%N)" >"$tmp/in-nbd-kos-place.proxy"
	END
	IN_NBD_KOS_PLACE=". $tmp/in-nbd-kos-place" LD_PRELOAD=$build/tests/bench/in_nbd_kos_place.so \
		nbd-client -nonetlink -nofork -N "$name" -certfile "$pki/client.pem" -keyfile "$pki/client.key" \
		-cacertfile "$pki/ca.pem" -tlshostname localhost 127.0.0.1 "$port" /dev/null \
		>"$tmp/nbd-client" 2>&1 || die "nbd-client: $(cat "$tmp/nbd-client")"
	jq --slurpfile proxy "$tmp/in-nbd-kos-place.proxy" \
		'$proxy as [$cpu, $from, $cpu_after, $to]
		| .cpu_us_per_io += ($cpu_after - $cpu) / ($to - $from) * 1e6 / .iops' "$tmp/in-nbd-kos-place.json"
}

# fio_args URI RW BS QD: sets args to what all runs of fio have in common.
fio_args() {
	args=(--name=bench --ioengine=nbd --uri="$1" --rw="$2" --bs="$3" --iodepth="$4" --thread
		--norandommap --randrepeat=1 --scramble_buffers=0 --unified_rw_reporting=mixed
		--lat_percentiles=1 --clat_percentiles=0 --slat_percentiles=0 --percentile_list=50:99)
}

# fio_json BYTES ARGS...: runs fio; prints a measurement. Latency is from submission to completion.
fio_json() {
	local bytes=$1
	shift

	"${client[@]}" fio "$@" --output-format=json --output="$tmp/fio" 2>"$tmp/fio.err" ||
		die "fio: $(cat "$tmp/fio" "$tmp/fio.err")"
	# The engine greets before the JSON begins.
	sed -n '/^{/,$p' "$tmp/fio" | jq --argjson bs "$bytes" '.jobs[0] | ((.usr_cpu + .sys_cpu) * .job_runtime * 10) as $cpu_us
		| .mixed | {iops: (.io_bytes * 1000 / .runtime / $bs), mbps: (.io_bytes / 1000 / .runtime),
			p50_us: (.lat_ns.percentile["50.000000"] / 1000),
			p99_us: (.lat_ns.percentile["99.000000"] / 1000),
			cpu_us_per_io: ($cpu_us / .total_ios)}'
}

run_libnbd() {
	local args

	fio_args "$@"
	# fio takes no fractions of a second.
	fio_json "$3" "${args[@]}" --time_based --runtime="$seconds" --ramp_time="${warm_up_ms}ms"
}

# nbdcopy_args URI RW BS QD: sets args. It copies the export once, in order; a write reads its data from
# a file in memory, which the CPU time includes.
nbdcopy_args() {
	args=(--requests="$4" --request-size="$3" --queue-size="$(($3 * $4))" --threads=1
		--connections=1 --no-extents --sparse=0 --allocated)
	if [ "$(op_of "$2")" = read ]; then args+=("$1" null:); else args+=("$shm/source" "$1"); fi
}

run_nbdcopy() {
	local args real user system TIMEFORMAT='%3R %3U %3S'

	nbdcopy_args "$@"
	{ time "${client[@]}" nbdcopy "${args[@]}" 2>"$tmp/nbdcopy.err" ||
		die "nbdcopy: $(cat "$tmp/nbdcopy.err")"; } 2>"$tmp/time"
	read -r real user system <"$tmp/time"
	jq -n --argjson bytes "$export_bytes" --argjson bs "$3" \
		--argjson real "$real" --argjson user "$user" --argjson system "$system" \
		'($bytes / $bs) as $n | {iops: ($n / $real), mbps: ($bytes / $real / 1e6), p50_us: null,
			p99_us: null, cpu_us_per_io: (($user + $system) * 1e6 / $n)}'
}

# ---- system calls ----

# syscalls_of COMMAND...: how many it makes in all its threads. perf counts them in the kernel; where it may
# not, strace does, which slows the client so that more gathers between two calls.
syscalls_of() {
	if [ -n "$perf_counts" ]; then
		perf stat -x, -e raw_syscalls:sys_enter -o "$tmp/perf" -- "$@" >/dev/null 2>&1
		sed -n 's/^\([0-9]*\),.*raw_syscalls.*/\1/p' "$tmp/perf"
	else
		strace -qq -c -U calls,name -f -o "$tmp/strace" -- "$@" >/dev/null 2>&1
		awk '$2 == "total" { print $1 }' "$tmp/strace"
	fi
}

# syscalls_per_io SUBJECT URI RW BS QD: a run less another one of half the requests, so that setting up and
# taking down cancel out.
syscalls_per_io() {
	local subject=$1 n many few args flag
	shift

	# As many as take a moment: each is one round trip at depth 1.
	n=$((64 * 1024 * 1024 / $3))
	[ "$4" != 1 ] || n=2000
	case $subject in
	gkproxy*)
		flag=$(sequential_flag "$2")
		args=("$wire_bench" -u "$1" -o "$(op_of "$2")" -b "$3" -d "$4" ${flag:+"$flag"})
		many=$(syscalls_of "${client[@]}" "${args[@]}" -n $((2 * n)))
		few=$(syscalls_of "${client[@]}" "${args[@]}" -n "$n")
		;;
	libnbd*)
		fio_args "$@"
		many=$(syscalls_of "${client[@]}" fio "${args[@]}" --io_size=$((2 * n * $3)))
		few=$(syscalls_of "${client[@]}" fio "${args[@]}" --io_size=$((n * $3)))
		;;
	nbdcopy*)
		# The whole export; setting up is a few hundred calls of many thousands.
		nbdcopy_args "$@"
		n=$((export_bytes / $3))
		many=$(syscalls_of "${client[@]}" nbdcopy "${args[@]}")
		few=0
		;;
	esac
	jq -n --argjson a "$many" --argjson b "$few" --argjson n "$n" '($a - $b) / $n'
}

perf_counts=1
perf stat -e raw_syscalls:sys_enter true >/dev/null 2>&1 || {
	perf_counts=
	type -P strace >/dev/null || die "perf may not count system calls and strace is not installed"
}

# ---- jobs: NAME RW BYTES DEPTH ----

jobs=()
for depth in 1 64 128; do
	jobs+=("4k-randread-qd$depth randread 4096 $depth" "4k-randwrite-qd$depth randwrite 4096 $depth")
done
for size in 128 512; do
	for depth in 8 32; do
		jobs+=("${size}k-read-qd$depth read $((size * 1024)) $depth"
			"${size}k-write-qd$depth write $((size * 1024)) $depth")
	done
done
[ -z "$tls" ] || for size in 128 512 1024; do
	tls_jobs+=("${size}k-read-qd8 read $((size * 1024)) 8" "${size}k-write-qd8 write $((size * 1024)) 8")
done
[ -z "$tls" ] || jobs=("${tls_jobs[@]}")
[ -z "$quick" ] || mapfile -t jobs < <(printf '%s\n' "${jobs[@]}" |
	grep -E '^(4k-randread-qd(1|64)|4k-randwrite-qd64|(128|512)k-.*-qd8) ')

# Its data must not be holes for the server, nor zeroes for nbdcopy.
head -c "$export_bytes" /dev/urandom >"$shm/source"
servers=(null nbdkit)
if [ -n "$tls" ]; then
	subjects=(nbdclient-1 gkproxy-user-1 nbdcopy-1)
	start_over_tls
else
	subjects=(libnbd-fio-1 gkproxy-copy-1 nbdcopy-1)
	start_null ''
	start_nbdkit nbdkit ''
fi
nbdcopy --allocated --sparse=0 "$shm/source" "${uris[${servers[-1]}]}"

measure() {
	local subject=$1
	shift

	case $subject in
	nbdclient*) run_nbdclient "$@" ;;
	libnbd*) run_libnbd "$@" ;;
	gkproxy*) run_gkproxy "$@" ;;
	nbdcopy*) run_nbdcopy "$@" ;;
	esac
}

for round in $(seq "$rounds"); do
	for which in "${servers[@]}"; do
		for job in "${jobs[@]}"; do
			read -r name rw bs qd <<<"$job"
			[[ $which:$name =~ $jobs_wanted ]] || continue
			# Another subject begins in each round.
			for i in "${!subjects[@]}"; do
				subject=${subjects[(i + round) % ${#subjects[@]}]}
				echo "round $round: $which:$name $subject" >&2
				measure "$subject" "${uris[$which]}" "$rw" "$bs" "$qd" >"$tmp/one"
				jq -c --arg job "$which:$name" --arg subject "$subject" --argjson round "$round" \
					'{round: $round, job: $job, subject: $subject} + .' "$tmp/one" >>"$tmp/all"
				[ "$round$tls" = 1 ] || continue
				calls=$(syscalls_per_io "$subject" "${uris[$which]}" "$rw" "$bs" "$qd")
				jq -nc --arg job "$which:$name" --arg subject "$subject" --argjson n "$calls" \
					'{job: $job, subject: $subject, once: {syscalls_per_io: $n}}' >>"$tmp/all"
			done
		done
	done
done
[ -s "$tmp/all" ] || die "no job is called like '$jobs_wanted'"

if [ -n "$tls" ]; then
	note="TLS in user space by $(openssl version | cut -d' ' -f1,2), AES by the processor's own instructions; one TCP connection \
over loopback; CPU of nbdclient: \
the proxy process and the queue loop that stands in nbd.ko's place, of nbdcopy writes: reading the source from memory too"
else
	note="data path copy with user memory as front, one TCP connection over loopback, client on one CPU; CPU of \
libnbd-fio includes fio's own, CPU of nbdcopy writes includes reading the source from memory; system calls \
counted with $([ -n "$perf_counts" ] && echo perf || echo strace)"
fi
jq -s --arg base "${subjects[0]}" --arg twin "" --argjson by_latency false --arg kernel "$(uname -r)" \
	--arg release "$(uname -v)" --arg command "$command" --argjson seconds "$seconds" --arg note "$note" -f "$bench_dir/report.jq" "$tmp/all" >"$tmp/report"
[ -z "$json" ] || cp "$tmp/report" "$json"
jq -r --arg columns "job=job subject=subject iops=IOPS mbps=MB/s p50_us=p50-us p99_us=p99-us \
cpu_us_per_io=CPU-us/io cpu_us_per_mb=CPU-us/MB syscalls_per_io=calls/io ratio=ratio cpu_ratio=CPU-ratio" \
	-f "$bench_dir/table.jq" "$tmp/report"
echo
echo "Medians of $rounds rounds on $(uname -r); ratio: throughput over ${subjects[0]}'s, CPU-ratio: its CPU per" \
	"request, both within a round."
