#!/bin/bash
# SPDX-License-Identifier: MIT
# SIGSTOP of the server for less and for more than request_timeout, under verified writes.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

start_fio() {
	keep_working fio_verify frozen --size=6m
	wait_for 60 "fio is at work" more_than 100 'reads + .writes'
}

stuck() {
	local before
	before=$(counter 'reads + .writes')
	[ "$(awk '{ print $1 + $2 }' /sys/block/ublkb0/inflight)" -gt 0 ] && ! more_than "$before" 'reads + .writes'
}

fenced() { status '.devices[0].connections[].state' | grep -q fencing; }

truncate -s 64M "$dir/disk"
nbdkit_unix -t 1 file "$dir/disk"

step "for less: nobody notices"
start_gkproxy request_timeout=120
start_fio
kill -STOP "$server_pid"
wait_for 30 "requests are stuck" stuck
kill -CONT "$server_pid"
enough
same "$(counter timeouts)" 0 timeouts
same "$(counter reconnects)" 0 reconnects
same_bytes "$device" "$dir/disk"
stop_gkproxy

# What it holds when it freezes it may still write when it thaws: only a fence keeps that from harm.
step "for more: it is given up, and its writes go out again when it has closed"
start_gkproxy request_timeout=2 'fence="strict"' 'unflushed="ignore"'
start_fio
kill -STOP "$server_pid"
# Behind what fio touches, so that there is a write also while fio reads.
dd if=/dev/zero of="$device" bs=4k seek=8192 count=1 oflag=direct status=none &
dd_pid=$!
wait_for 30 "a request is overdue" more_than 0 timeouts
wait_for 30 "a connection is fenced" fenced
kill -CONT "$server_pid"
wait "$dd_pid" || fail "the write failed"
enough
happened timeouts "$(counter timeouts)"
happened reconnects "$(counter reconnects)"
happened replays "$(counter replays)"
same "$(counter unfenced_replays)" 0 "unfenced replays"
same "$(counter errors)" 0 errors
same_bytes "$device" "$dir/disk"
stop_gkproxy

step "one that stays frozen: after fence_timeout the write goes out again, and is counted"
start_gkproxy request_timeout=1 fence_timeout=1 connect_timeout=2 'unflushed="ignore"'
kill -STOP "$server_pid"
dd if=/dev/urandom of="$dir/data" bs=4k count=1 status=none
dd if="$dir/data" of="$device" bs=4k seek=3 oflag=direct status=none &
dd_pid=$!
wait_for 30 "it is given up unfenced" more_than 0 unfenced_replays
kill -CONT "$server_pid"
wait "$dd_pid" || fail "the write failed"
logged 'did not end within fence_timeout'
cmp "$dir/data" <(dd if="$device" bs=4k skip=3 count=1 iflag=direct status=none) || fail "other bytes came back"
