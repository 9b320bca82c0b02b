#!/bin/bash
# SPDX-License-Identifier: MIT
# A device can be removed also while its server holds requests and says nothing.
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 64M
start_gkproxy
kill -STOP "$server_pid"
dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none 2>"$dir/dd" &
dd_pid=$!
in_flight() { [ "$(awk '{ print $1 + $2 }' /sys/block/ublkb0/inflight)" -gt 0 ]; }
wait_for 30 "the read is in flight" in_flight
stop_gkproxy
! wait "$dd_pid" || fail "the read succeeded without an answer"
kill -CONT "$server_pid"
