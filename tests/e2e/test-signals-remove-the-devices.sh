#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 64M
for signal in TERM INT; do
	step "SIG$signal, idle"
	start_gkproxy
	stop_gkproxy "$signal"
done

step "SIGTERM with two devices, one of them busy"
cat >"$conf" <<END
devices = ( { name = "vol0"; id = 0; remote = "$uri"; }, { name = "vol1"; id = 1; remote = "$uri"; } );
END
start_conf
same "$(status '.devices | map(.path) | join(" ")')" "/dev/ublkb0 /dev/ublkb1" devices
fio --name=busy --filename="$device" --eta=never --ioengine=libaio --direct=1 --iodepth=32 --rw=randread --bs=4k \
	--time_based --runtime=120 >"$dir/fio.log" 2>&1 &
fio_pid=$!
busy() { [ "$(status '.devices[0].counters.reads')" -gt 200 ]; }
wait_for 60 "fio is at work" busy
stop_gkproxy
! wait "$fio_pid" || fail "fio saw no error when its device went"
