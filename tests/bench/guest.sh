#!/bin/bash
# SPDX-License-Identifier: MIT
# The guest's part of compare.sh: runs the jobs over every subject and prints each measurement as a line
# of JSON behind "@@ ". Environment:
#
#   GK_BENCH_ROUNDS   0: none, counts instead the instructions of one run (in a guest of run.sh -i)
#   GK_BENCH_SECONDS  of each run
#   GK_BENCH_JOBS     regular expression
#   GK_BENCH_SIZES    not empty: other jobs and subjects, to choose zero_copy_threshold by: sizes around it, each
#                     without a copy where the data path can, and on the same data path through staging
#   GK_BENCH_TLS      not empty: everything over TLS
#   GK_BENCH_ZC       data path for the zero copy subjects: group, registered; auto: what there is
# shellcheck source=tests/lib/functions.sh
. tests/lib/functions.sh
export LC_ALL=C

export_mib=256

# ---- jobs: NAME RW BYTES DEPTH ----

jobs=()
for depth in 1 32 128; do
	jobs+=("4k-randread-qd$depth randread 4096 $depth" "4k-randwrite-qd$depth randwrite 4096 $depth")
done
for size in 64 128 512 1024; do
	jobs+=("${size}k-read-qd8 read $((size * 1024)) 8" "${size}k-write-qd8 write $((size * 1024)) 8")
done
jobs+=("4k-randrw70-qd32 randrw 4096 32")

threshold='' # what gkproxy chooses
if [ -n "${GK_BENCH_SIZES:-}" ]; then
	jobs=() threshold=512
	for size in 4 8 16 32 64 128 256; do
		jobs+=("${size}k-randread-qd8 randread $((size * 1024)) 8" "${size}k-randwrite-qd8 randwrite $((size * 1024)) 8")
	done
fi

# ---- subjects: NAME DEVICE ----

declare -A device_of

# tls_device ID NAME PATH KTLS
tls_device() {
	echo "{ name = \"$2\"; id = $1; remote = \"$uri\"; data_path = \"$3\"; queues = 1; connections = 1;"
	echo "  tls = { ca = \"$pki/ca.pem\"; cert = \"$pki/client.pem\"; key = \"$pki/client.key\"; ktls = \"$4\"; }; }"
}

# What nbd-client leaves to GnuTLS is TLS 1.2, gkproxy takes 1.3.
start_subjects_over_tls() {
	local path=${GK_BENCH_ZC:-copy}

	# shellcheck source=tests/lib/tls.sh
	. tests/lib/tls.sh
	nbdkit_tls memory "${export_mib}M"
	nbd-client -L -N '' -certfile "$pki/client.pem" -keyfile "$pki/client.key" -cacertfile "$pki/ca.pem" \
		-tlshostname localhost 127.0.0.1 10809 /dev/nbd1 >/dev/null 2>&1
	wait_for 30 "nbd1 has its size" has_size nbd1
	{
		echo "devices = ("
		tls_device 0 user copy off
		echo ,
		tls_device 1 copy copy auto
		[ "$path" = copy ] || { echo ,; tls_device 2 "$path" "$path" auto; }
		echo ");"
	} >"$conf"
	start_conf
	status '.devices[] | "\(.name): \(.connections[0] | "\(.tls) \(.tls_version) \(.tls_cipher)")"'
	subjects=(nbdko-1 gkproxy-user-1 gkproxy-copy-1)
	device_of=([nbdko-1]=nbd1 [gkproxy-user-1]=ublkb0 [gkproxy-copy-1]=ublkb1)
	if [ "$path" != copy ]; then
		subjects+=("gkproxy-$path-1")
		device_of[gkproxy-$path-1]=ublkb2
	fi
	for path in "${subjects[@]}"; do
		[ ! -e "/sys/block/${device_of[$path]}/queue/scheduler" ] ||
			echo none >"/sys/block/${device_of[$path]}/queue/scheduler"
	done
}

start_subjects() {
	local path paths=(copy) kinds=(1 2) id=0 n

	nbdkit_tcp memory "${export_mib}M"
	for n in 1 2; do
		nbd-client -C "$n" 127.0.0.1 10809 "/dev/nbd$n" >/dev/null 2>&1
		device_of[nbdko-$n]=nbd$n
		wait_for 30 "nbd$n has its size" has_size "nbd$n"
	done
	[ -z "$GK_BENCH_ZC" ] || paths+=("$GK_BENCH_ZC")
	[ -z "${GK_BENCH_SIZES:-}" ] || kinds=(1 staged)
	{
		echo "devices = ("
		for path in "${paths[@]}"; do
			for n in "${kinds[@]}"; do
				[ "$id" = 0 ] || echo ,
				echo "{ name = \"$path-$n\"; id = $id; remote = \"$uri\"; data_path = \"$path\";"
				if [ "$n" = staged ]; then
					echo "  queues = 1; connections = 1; zero_copy_threshold = \"32M\"; }"
				else
					echo "  queues = $n; connections = $n; ${threshold:+zero_copy_threshold = \"$threshold\";} }"
				fi
				id=$((id + 1))
			done
		done
		echo ");"
	} >"$conf"
	start_conf
	while read -r path n id; do
		# What auto became; copy a second time is no subject.
		[ "$path" = copy ] && [ "$id" -gt 1 ] || device_of[gkproxy-$path-${n##*-}]=ublkb$id
	done < <(status '.devices[] | "\(.data_path) \(.name) \(.path | ltrimstr("/dev/ublkb"))"')
	subjects=()
	for n in "${kinds[@]}"; do
		# With one CPU there is nothing to learn from two queues.
		[ "$n" != 2 ] || [ "$GK_BENCH_ROUNDS" != 0 ] || continue
		for path in nbdko gkproxy-copy gkproxy-group gkproxy-registered; do
			[ -z "${device_of[$path-$n]:-}" ] || subjects+=("$path-$n")
		done
	done
	# On data path copy there is no threshold.
	[ -z "${GK_BENCH_SIZES:-}" ] || mapfile -t subjects < <(printf '%s\n' "${subjects[@]}" | grep -vx -e 'nbdko-1' -e 'gkproxy-copy-staged')
	for path in "${subjects[@]}"; do
		[ ! -e "/sys/block/${device_of[$path]}/queue/scheduler" ] ||
			echo none >"/sys/block/${device_of[$path]}/queue/scheduler"
		echo "$path is ${device_of[$path]}: $(settings_of "${device_of[$path]}")"
	done
}

has_size() {
	[ "$(cat "/sys/block/$1/size")" != 0 ]
}

settings_of() {
	local key

	for key in scheduler max_sectors_kb nr_requests logical_block_size; do
		printf '%s %s  ' "$key" "$(cat "/sys/block/$1/queue/$key")"
	done
}

# ---- what the kernel counts ----

# sectors_of DEVICE: sets sectors to those read and written.
sectors_of() {
	local read_ written

	read -r _ _ read_ _ _ _ written _ <"/sys/block/$1/stat"
	sectors=$((read_ + written))
}

# cpu_times: sets cpu to the run times so far, in ns, of gkproxy, the kernel's threads and the server; with run.sh
# -i a nanosecond is an instruction.
cpu_times() {
	read -ra cpu < <(cpu_ns "$gkproxy_pid" kernel "$server_pid")
}

# ---- one run ----

# fio_args DEVICE RW BYTES DEPTH: sets args.
fio_args() {
	args=(--name=bench --filename="/dev/$1" --ioengine=libaio --direct=1 --rw="$2" --rwmixread=70 --bs="$3"
		--iodepth="$4" --norandommap --randrepeat=1 --scramble_buffers=0 --unified_rw_reporting=mixed
		--lat_percentiles=1 --clat_percentiles=0 --slat_percentiles=0 --percentile_list=50:99
		--disk_util=0 --output-format=json --output="$dir/fio.json" --eta=never)
}

run_fio() {
	fio "${args[@]}" "$@" 2>"$dir/fio.err" || fail "fio: $(cat "$dir/fio.err")"
}

# measure ROUND JOB SUBJECT RW BYTES DEPTH. jq takes longer to start here than all the rest: compare.sh makes of
# it what measurement.jq says.
measure() {
	local device=${device_of[$3]} sectors args cpu before_sectors before_cpu

	fio_args "$device" "$4" "$5" "$6"
	sectors_of "$device"
	before_sectors=$sectors
	cpu_times
	before_cpu=("${cpu[@]}")
	run_fio --time_based --runtime="$GK_BENCH_SECONDS" --ramp_time=300ms
	cpu_times
	sectors_of "$device"
	printf '@@ {"round":%s,"job":"%s","subject":"%s","bytes":%s,"n":%s,"daemon_ns":%s,"kernel_ns":%s,"fio":%s}\n' \
		"$1" "$2" "$3" "$5" $(((sectors - before_sectors) * 512 / $5)) $((cpu[0] - before_cpu[0])) \
		$((cpu[1] - before_cpu[1])) "$(tr -d ' \n' <"$dir/fio.json")"
}

# ---- system calls ----

tracing=/sys/kernel/debug/tracing
trigger=$tracing/events/raw_syscalls/sys_enter/trigger

# trace_daemon: the kernel counts the daemon's system calls by number, which slows it little.
trace_daemon() {
	local task filter=''

	for task in "/proc/$gkproxy_pid/task"/*; do
		filter+="${filter:+||}common_pid==${task##*/}"
	done
	trigger_text="hist:keys=id if $filter"
	echo "$trigger_text" >"$trigger"
}

# loops_of_all: prints the turns of all queue loops so far, each of them an io_uring_enter.
loops_of_all() {
	gkproxy status --json | tr ',{' '\n' | awk -F: '$1 ~ /"loops"/ { n += $2 } END { print n + 0 }'
}

count_calls() {
	local job=$1 subject=$2 device=${device_of[$2]} sectors args strace_pid='' before calls loops n how
	shift 2

	fio_args "$device" "$@"
	sectors_of "$device"
	before=$sectors
	loops=$(loops_of_all)
	if [ -e "$tracing/events/raw_syscalls/sys_enter/hist" ]; then
		how=kernel
		trace_daemon
		run_fio --time_based --runtime=500ms
		calls=$(awk '/hitcount:/ { n += $NF } END { print n + 0 }' "${trigger%trigger}hist")
		echo "!$trigger_text" >"$trigger"
	else
		how=strace
		strace -qq -c -U calls,name -f -p "$gkproxy_pid" -o "$dir/strace" &
		strace_pid=$!
		wait_for 30 "strace holds the daemon" traced
		run_fio --time_based --runtime=500ms
		kill -INT "$strace_pid"
		wait "$strace_pid" || true
		calls=$(awk '$2 == "total" { print $1 }' "$dir/strace")
	fi
	loops=$(($(loops_of_all) - loops))
	sectors_of "$device"
	n=$(((sectors - before) * 512 / $2))
	printf '@@ {"job":"%s","subject":"%s","how":"%s","once":{"syscalls_per_io":%s,"enters_per_io":%s}}\n' "$job" "$subject" \
		"$how" "$(quotient "$calls" "$n")" "$(quotient "$loops" "$n")"
}

quotient() {
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.6g", a / b }'
}

traced() {
	grep -qx 'TracerPid:[[:space:]]*[1-9][0-9]*' "/proc/$gkproxy_pid/status"
}

# ---- instructions ----

# instructions_of SUBJECT RW BYTES DEPTH MIB: sets counts to instructions of subject, fio, server. With run.sh
# -i a nanosecond of run time is one. fio moves so many MiB.
instructions_of() {
	local args cpu before seconds TIMEFORMAT='%3U %3S'
	local size=$5

	fio_args "${device_of[$1]}" "$2" "$3" "$4"
	cpu_times
	before=("${cpu[@]}")
	seconds=$({ time run_fio --io_size="${size}M" --size="${export_mib}M"; } 2>&1)
	cpu_times
	counts="$((cpu[0] - before[0])) $((cpu[1] - before[1])) $((cpu[2] - before[2])) $seconds"
}

# A long run less a short one: what starting costs cancels out.
count_instructions() {
	local job=$1 subject=$2 counts short span=16
	shift 2

	[ "$2" -le 16384 ] || span=128
	instructions_of "$subject" "$@" 8
	short=$counts
	instructions_of "$subject" "$@" $((8 + span))
	# shellcheck disable=SC2086
	jq -nc --arg job "$job" --arg subject "$subject" --argjson bs "$2" --argjson span "$span" '[$ARGS.positional[] | tonumber] as $v
		| ($span * 1.048576) as $mb | [range(5) | $v[. + 5] - $v[.]] as $d
		| ((if $subject | startswith("nbdko") then $d[1] else $d[0] end) / $mb) as $own
		| (($d[3] + $d[4]) * 1e9 / $mb) as $fio
		| {job: $job, subject: $subject, instructions_per_mb: $own,
			fio_instructions_per_mb: $fio, server_instructions_per_mb: ($d[2] / $mb),
			total_instructions_per_mb: (($d[0] + $d[1]) / $mb + $fio),
			instructions_per_io: ($own * $bs / 1e6)}' --args $short $counts | sed 's/^/@@ /'
}

# ----

each() {
	local job name rw bytes depth i first=$1
	shift

	for job in "${jobs[@]}"; do
		read -r name rw bytes depth <<<"$job"
		[[ $name =~ $GK_BENCH_JOBS ]] || continue
		for i in "${!subjects[@]}"; do
			subject=${subjects[(i + first) % ${#subjects[@]}]}
			echo "$name $subject"
			"$@" "$name" "$subject" "$rw" "$bytes" "$depth"
		done
	done
}

# Another queue changes little here.
count_calls_of_gkproxy() {
	[[ $2 != gkproxy*-1 ]] || count_calls "$@"
}

# As udev does for the processor: kernels from 7.x on are content with AES in C for gcm(aes) until somebody loads it.
modprobe aesni_intel 2>/dev/null || true
if [ -n "${GK_BENCH_TLS:-}" ]; then start_subjects_over_tls; else start_subjects; fi
uname -r | sed 's/.*/@@ {"release": "&"}/'
fio --name=fill --filename=/dev/nbd1 --rw=write --bs=1M --direct=1 --refill_buffers --eta=never --output="$dir/fill" ||
	fail "fio cannot fill the export"

if [ "$GK_BENCH_ROUNDS" = 0 ]; then
	each 0 count_instructions
else
	for round in $(seq "$GK_BENCH_ROUNDS"); do
		# Another subject begins in each.
		step "round $round"
		each "$round" measure "$round"
	done
	step "system calls"
	each 0 count_calls_of_gkproxy
fi
nbd-client -d /dev/nbd1 >/dev/null
[ -n "${GK_BENCH_TLS:-}" ] || nbd-client -d /dev/nbd2 >/dev/null
