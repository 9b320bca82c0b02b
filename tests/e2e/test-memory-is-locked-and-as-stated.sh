#!/bin/bash
# SPDX-License-Identifier: MIT
# What a device takes is what README.md says ("Memory"), it is in memory and locked there, and the OOM killer is
# told to take others.
. "$(dirname "$0")/../lib/functions.sh"

extra=8

# many_devices NUMBER KEY=VALUE...: vol0 and its likes, all on one export.
many_devices() {
	local number=$1 i setting settings=
	shift

	for setting; do
		settings+=" ${setting%%=*} = ${setting#*=};"
	done
	{
		echo "devices = ("
		for ((i = 0; i < number; i++)); do
			[ "$i" = 0 ] || echo ","
			echo "  { name = \"vol$i\"; id = $i; remote = \"$uri\";$settings }"
		done
		echo ");"
	} >"$conf"
}

# of_gkproxy FILE FIELD: KiB.
of_gkproxy() {
	awk -v field="$2:" '$1 == field { sum += $2 } END { print sum }' "/proc/$gkproxy_pid/$1"
}

# takes KIB KEY=VALUE...: so much for each device more, measured over several.
takes() {
	local stated=$1 one many locked each
	shift

	many_devices 1 "$@"
	start_conf
	one=$(of_gkproxy status RssAnon)
	stop_gkproxy
	many_devices $((1 + extra)) "$@"
	start_conf
	many=$(of_gkproxy status RssAnon)
	locked=$(of_gkproxy smaps_rollup Locked)
	each=$(((many - one) / extra))
	echo "   $*: $each KiB a device, stated $stated; $locked KiB of $(of_gkproxy status VmRSS) locked"
	((each > stated * 8 / 10 && each < stated * 11 / 10)) || fail "a device takes $each KiB, not $stated"
	((locked >= many)) || fail "of $many KiB only $locked are locked"
	same "$(cat "/proc/$gkproxy_pid/oom_score_adj")" -1000 "oom_score_adj"
	! grep -q 'memory is not locked' "$log" || fail "gkproxy complains: $(cat "$log")"
	stop_gkproxy
}

nbdkit_unix memory 16M
step "data path copy: queue_depth * 512 KiB, 384 KiB a connection, 1 MiB"
takes $((24 * 512 + 384 + 1024)) 'data_path="copy"' queue_depth=24 queues=1 connections=1
takes $((2 * 8 * 512 + 2 * 384 + 1024)) 'data_path="copy"' queue_depth=8 queues=2 connections=2

step "without the right to lock memory it says so and goes on"
one_device queue_depth=8
: >"$log"
(
	ulimit -l 64
	exec setpriv --bounding-set -ipc_lock,-sys_resource --inh-caps -ipc_lock,-sys_resource gkproxy -c "$conf"
) 2>>"$log" &
gkproxy_pid=$!
wait_for 60 "gkproxy says that the devices are up" ready_or_ended
logged 'warning: memory is not locked.*CAP_IPC_LOCK'
logged 'warning: cannot lower /proc/self/oom_score_adj.*OOMScoreAdjust'
dd if=/dev/urandom of="$device" bs=64k count=16 oflag=direct status=none
same "$(of_gkproxy smaps_rollup Locked)" 0 "KiB locked"
