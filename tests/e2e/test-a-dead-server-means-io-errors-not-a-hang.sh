#!/bin/bash
# SPDX-License-Identifier: MIT
# With reconnect_timeout a device whose server stays away ends in errors, within that time.
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 64M
start_gkproxy reconnect_timeout=2
fio --name=until-dead --filename="$device" --eta=never --ioengine=libaio --direct=1 --iodepth=32 --rw=randrw --bs=4k \
	--time_based --runtime=120 >"$dir/fio.log" 2>&1 &
fio_pid=$!
busy() { [ "$(status '.devices[0].counters.writes')" -gt 200 ]; }
wait_for 60 "fio is at work" busy
stop_server KILL

wait_for 60 "fio ends" gone "$fio_pid"
! wait "$fio_pid" || fail "fio saw no error"
grep -q 'Input/output error' "$dir/fio.log" || fail "fio saw something else: $(tail -n 5 "$dir/fio.log")"
! dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null ||
	fail "a read succeeded without a server"
same "$(status '.devices[0].state')" reconnecting "state of the device"
step "the daemon lives, and the device can be removed"
stop_gkproxy
