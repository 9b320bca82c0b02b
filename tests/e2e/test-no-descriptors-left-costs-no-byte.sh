#!/bin/bash
# SPDX-License-Identifier: MIT
# Out of file descriptors: attaching says so in one line; a running device that has to dial waits, and comes back
# when there are some.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

no_descriptors() {
	grep -q "Too many open files" "$log"
}

# attaches_with LIMIT: whether so many descriptors are enough; if not, there is one line that says what to do.
attaches_with() {
	local status=0

	: >"$log"
	prlimit --nofile="$1:$1" gkproxy -c "$conf" 2>>"$log" &
	gkproxy_pid=$!
	wait_for 60 "gkproxy is ready, or ends" ready_or_ended
	! grep -q 'ready: all devices are up' "$log" || return 0
	wait "$gkproxy_pid" || status=$?
	gkproxy_pid=
	same "$status" 1 "exit status of gkproxy"
	same "$(grep -c . "$log")" 1 "number of lines with $1 descriptors: '$(cat "$log")'"
	grep -q 'Too many open files.*LimitNOFILE' "$log" || fail "with $1 descriptors it says: $(cat "$log")"
	nothing_left
	return 1
}

truncate -s 32M "$dir/disk"
nbdkit_unix -t 1 file "$dir/disk"
one_device connections=1 queues=1
# Below four not even its libraries can be loaded.
limit=4
until attaches_with "$limit"; do
	limit=$((limit + 1))
	[ "$limit" -lt 40 ] || fail "40 descriptors are not enough"
done
echo "   one device with one connection needs $limit descriptors"
[ "$limit" -gt 5 ] || fail "the limit had no effect"
stop_gkproxy

start_gkproxy connections=4 queues=2
keep_working fio_verify work --size=8m
prlimit --pid "$gkproxy_pid" --nofile=3:65536
kill_at_work "$server_pid"
nbdkit_unix -t 1 file "$dir/disk"
wait_for 60 "gkproxy says that it has no descriptors" no_descriptors
# Below what is open not even the descriptors count that are kept for who asks for the status: it waits, too.
in_flight || fail "nothing waits for the server"
prlimit --pid "$gkproxy_pid" --nofile=65536:65536
wait_for 60 "all connections are back" is_up
enough
happened replays "$(counter replays)"
same "$(counter errors)" 0 "errors"
