#!/bin/bash
# SPDX-License-Identifier: MIT
# kill -9 of gkproxy under verified writes: the next one takes the device over, and no request is lost.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 64M "$dir/disk"
uri="nbd+unix:///?socket=$dir/nbd.sock"
nbdkit -f -t 1 -U "$dir/nbd.sock" file "$dir/disk" 2>"$dir/nbdkit.log" &
server_pids+=($!)
wait_for 30 "nbdkit listens" test -S "$dir/nbd.sock"
start_gkproxy
at_work() { [ "$(awk '{ print $1 + $2 }' /sys/block/ublkb0/inflight)" -gt 8 ] || gone "$fio_pid"; }

(trap - EXIT; fio_verify through-the-kills --size=32m) &
fio_pid=$!
kills=0
for _ in 1 2 3 4; do
	wait_for 60 "fio is at work" at_work
	gone "$fio_pid" && break
	kill -KILL "$gkproxy_pid"
	wait "$gkproxy_pid" 2>/dev/null || true
	kills=$((kills + 1))
	start_conf
	logged 'ublkb0 is taken over'
	fenced
done
wait "$fio_pid" || fail "fio saw an error"
echo "   kills: $kills, each time taken over"
[ "$kills" -gt 0 ] || fail "gkproxy was never killed"
same_bytes "$device" "$dir/disk"

step "a changed configuration is refused, and the device stays"
kill -KILL "$gkproxy_pid"
wait "$gkproxy_pid" 2>/dev/null || true
one_device queue_depth=64
status=0
: >"$log"
gkproxy -c "$conf" 2>>"$log" || status=$?
same "$status" 1 "exit status with another queue_depth"
logged 'queue_depth is 128 there and would be 64 now'
[ -b "$device" ] || fail "the device is gone"
one_device
start_conf
