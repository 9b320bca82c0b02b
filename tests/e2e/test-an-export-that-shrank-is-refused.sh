#!/bin/bash
# SPDX-License-Identifier: MIT
# A server that comes back with less than there was, or read-only, is not used: requests wait, or end after
# reconnect_timeout; with what there was all is well again.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

# come_back SIZE
come_back() {
	stop_server KILL
	truncate -s "$1" "$dir/disk"
	nbdkit_unix file "$dir/disk"
}

refused() { grep -q 'the export shrank from 67108864 to 33554432 bytes: not reconnected' "$log"; }

truncate -s 64M "$dir/disk"
nbdkit_unix file "$dir/disk"
step "without reconnect_timeout a request waits until the export is whole again"
start_gkproxy
come_back 32M
wait_for 30 "it is refused" refused
state_is reconnecting || fail "connected to an export that shrank"
dd if="$device" of="$dir/read" bs=4k skip=1000 count=1 iflag=direct status=none &
dd_pid=$!
come_back 64M
wait "$dd_pid" || fail "the read failed"
is_up || wait_for 30 "all connections are back" is_up

step "nor one that became read-only"
stop_server KILL
nbdkit_unix -r file "$dir/disk"
became_read_only() { grep -q 'became read-only: not reconnected' "$log"; }
wait_for 30 "it is refused" became_read_only
dd if=/dev/urandom of="$dir/data" bs=4k count=1 status=none
dd if="$dir/data" of="$device" bs=4k seek=7 oflag=direct status=none &
dd_pid=$!
wait_for 30 "a write waits" in_flight
stop_server KILL
nbdkit_unix file "$dir/disk"
wait "$dd_pid" || fail "the write failed"
cmp "$dir/data" <(dd if="$dir/disk" bs=4k skip=7 count=1 status=none) || fail "the write is not there"
happened reconnects "$(counter reconnects)"
same "$(counter errors)" 0 errors
stop_gkproxy

step "with reconnect_timeout it fails"
start_gkproxy reconnect_timeout=1
come_back 32M
wait_for 30 "it is refused" refused
! dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none 2>"$dir/err" || fail "a read succeeded"
grep -q 'Input/output error' "$dir/err" || fail "the read failed in another way: $(cat "$dir/err")"
happened errors "$(counter errors)"
same "$(counter reconnects)" 0 reconnects
come_back 64M
wait_for 30 "all connections are back" is_up
dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none
