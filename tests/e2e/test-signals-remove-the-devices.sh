#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 64M
for signal in TERM INT; do
	step "SIG$signal, idle"
	start_gkproxy
	stop_gkproxy "$signal"
done

step "SIGTERM with two devices, one of them busy, one of them held open"
cat >"$conf" <<END
devices = ( { name = "vol0"; id = 0; remote = "$uri"; }, { name = "vol1"; id = 1; remote = "$uri"; } );
END
start_conf
same "$(status '.devices | map(.path) | join(" ")')" "/dev/ublkb0 /dev/ublkb1" devices
while dd if="$device" of=/dev/null bs=4k count=1000 iflag=direct status=none 2>"$dir/dd"; do :; done &
reader_pid=$!
exec 5</dev/ublkb1
busy() { [ "$(status '.devices[0].counters.reads')" -gt 200 ]; }
wait_for 60 "the reader is at work" busy
stop_gkproxy
wait_for 60 "the reader ends" gone "$reader_pid"
exec 5<&-

step "the ids are free again"
start_conf
