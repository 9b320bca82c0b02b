#!/bin/bash
# SPDX-License-Identifier: MIT
# Two servers of one disk: the second takes over when the first dies or freezes, and the first one is tried
# first again when the second goes.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

# server N: starts it; its pid is in pids[N].
server() {
	nbdkit_at -U "$dir/$1.sock" -- file "$dir/disk"
	pids[$1]=$server_pid
}

kill_server() {
	kill_at_work "${pids[$1]}"
	rm "$dir/$1.sock"
}

# at N: that one is connected, by all that the status says.
at() { [ "$(status ".devices[0] | .remote, .peer" | grep -c "/$1\.sock")" = 2 ]; }

at_and_up() { at "$1" && is_up; }

# two_servers [KEY=VALUE]...: a device with both of them.
two_servers() {
	uri=unused
	one_device "$@"
	sed -i "s,remote = \"unused\",remote = ( \"nbd+unix:///?socket=$dir/1.sock\"\, \"nbd+unix:///?socket=$dir/2.sock\" )," \
		"$conf"
	start_conf
}

pids=()
truncate -s 64M "$dir/disk"
server 1
server 2
two_servers connections=2 queues=2 'unflushed="ignore"'
at 1 || fail "not at the preferred server"
keep_working fio_verify failover --size=6m
wait_for 60 "fio is at work" more_than 100 writes
kill_server 1
wait_for 60 "the second takes over" at_and_up 2
server 1
wait_for 60 "fio gets on" more_than "$(($(counter writes) + 50))" writes
kill_server 2
wait_for 60 "the first is back in its place" at_and_up 1
enough
happened reconnects "$(counter reconnects)"
happened replays "$(counter replays)"
same "$(counter errors)" 0 errors
same_bytes "$device" "$dir/disk"
stop_gkproxy

# No sign of a restart; but what the first one had not flushed, the second one may never have heard of.
step "the first one freezes with an acknowledged write not flushed: fsync tells"
server 2
two_servers connections=2 queues=2 request_timeout=1 connect_timeout=2
dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct status=none
kill -STOP "${pids[1]}"
dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none
at 2 || fail "the read came from a frozen server"
happened timeouts "$(counter timeouts)"
! flush_device || fail "fsync succeeded after a failover with writes not flushed"
flush_device || fail "a second fsync failed too"
kill -CONT "${pids[1]}"
