#!/bin/bash
# SPDX-License-Identifier: MIT
# kill -9 and planned restarts of gkproxy in turn, under a mounted ext4 at work: then the file system is whole.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

truncate -s 128M "$dir/disk"
nbdkit_unix -t 1 file "$dir/disk"
start_gkproxy 'on_exit="keep"' 'zero_copy_threshold="16K"' 'unflushed="ignore"'
mkfs.ext4 -q "$device"
mount "$device" /mnt
work() {
	fio --name=files --directory=/mnt --size=3m --numjobs=2 --ioengine=libaio --direct=1 --iodepth=16 \
		--rw=randwrite --bssplit=4k/60:16k/30:128k/10 --verify=crc32c --do_verify=1 --verify_fatal=1 \
		--end_fsync=1 --eta=never >"$dir/fio.log" 2>&1 || fail "fio: $(tail -n 20 "$dir/fio.log")"
}
keep_working work
kills=0 restarts=0 recovered=0
for signal in KILL TERM KILL TERM KILL; do
	wait_for 60 "fio gets on" more_than "$(($(counter 'reads + .writes') + 100))" 'reads + .writes'
	same "$(counter errors)" 0 errors
	# Stopped, it ends no request: what it is asked for now is in flight when it dies.
	[ "$signal" = TERM ] || kill -STOP "$gkproxy_pid"
	wait_for 60 "requests are in flight" in_flight
	[ "$signal" = TERM ] || recovered=$((recovered + $(awk '{ print $1 + $2 }' /sys/block/ublkb0/inflight)))
	kill "-$signal" "$gkproxy_pid"
	wait "$gkproxy_pid" 2>/dev/null || [ "$signal" = KILL ] || fail "gkproxy ended with status $?"
	start_conf
	logged 'ublkb0 is taken over'
	if [ "$signal" = KILL ]; then kills=$((kills + 1)); else restarts=$((restarts + 1)); fi
done
enough
happened kills "$kills"
happened restarts "$restarts"
happened "requests in flight at a kill" "$recovered"
same "$(counter errors)" 0 errors
umount /mnt
e2fsck -fn "$device"
same_bytes "$device" "$dir/disk"
one_device on_exit='"remove"' 'zero_copy_threshold="16K"' 'unflushed="ignore"'
kill -TERM "$gkproxy_pid"
wait "$gkproxy_pid" || fail "gkproxy ended with status $?"
start_conf
