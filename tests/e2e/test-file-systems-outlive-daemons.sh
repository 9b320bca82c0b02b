#!/bin/bash
# SPDX-License-Identifier: MIT
# kill -9 and planned restarts of gkproxy in turn, under a mounted ext4 and a mounted XFS at work: then both are whole.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

# write_conf ON_EXIT: prints a configuration with both devices.
write_conf() {
	local fs

	echo "defaults = { on_exit = \"$1\"; zero_copy_threshold = \"16K\"; unflushed = \"ignore\"; };"
	echo "devices = ("
	for fs in ext4 xfs; do
		echo "{ name = \"$fs\"; remote = \"nbd+unix:///$fs?socket=$dir/nbd.sock\";"
		[ -z "${GK_DATA_PATH:-}" ] || echo "data_path = \"$GK_DATA_PATH\";"
		if [ "$fs" = ext4 ]; then echo "id = 0; },"; else echo "id = 1; } );"; fi
	done
}

waiting() { awk '{ n += $1 + $2 } END { print n }' /sys/block/ublkb[01]/inflight; }
at_work() { [ "$(waiting)" -gt 0 ]; }
errors() { status '[.devices[].counters.errors] | add'; }

mkdir "$dir/exports"
truncate -s 320M "$dir/exports/ext4" "$dir/exports/xfs"
nbdkit_unix -t 1 file dir="$dir/exports"
write_conf keep >"$conf"
start_conf
mkfs.ext4 -q /dev/ublkb0
mkfs.xfs -q /dev/ublkb1
mount /dev/ublkb0 /mnt
mkdir /mnt/xfs
mount /dev/ublkb1 /mnt/xfs
work() {
	fio --size=2m --ioengine=libaio --direct=1 --iodepth=16 --rw=randwrite --bssplit=4k/60:16k/30:128k/10 \
		--verify=crc32c --do_verify=1 --verify_fatal=1 --end_fsync=1 --eta=never \
		--name=ext4 --directory=/mnt --name=xfs --directory=/mnt/xfs \
		>"$dir/fio.log" 2>&1 || fail "fio: $(tail -n 20 "$dir/fio.log")"
}
keep_working work
kills=0 restarts=0 recovered=0
for signal in KILL TERM KILL; do
	wait_for 60 "fio gets on" more_than "$(($(counter 'reads + .writes') + 100))" 'reads + .writes'
	same "$(errors)" 0 errors
	# Stopped, it ends no request: what it is asked for now is in flight when it dies.
	[ "$signal" = TERM ] || kill -STOP "$gkproxy_pid"
	wait_for 60 "requests are in flight" at_work
	[ "$signal" = TERM ] || recovered=$((recovered + $(waiting)))
	kill "-$signal" "$gkproxy_pid"
	wait "$gkproxy_pid" 2>/dev/null || [ "$signal" = KILL ] || fail "gkproxy ended with status $?"
	start_conf
	same "$(grep -c 'is taken over' "$log")" 2 "devices taken over"
	fenced
	if [ "$signal" = KILL ]; then kills=$((kills + 1)); else restarts=$((restarts + 1)); fi
done
enough
happened kills "$kills"
happened restarts "$restarts"
happened "requests in flight at a kill" "$recovered"
same "$(errors)" 0 errors
umount /mnt/xfs /mnt
e2fsck -fn /dev/ublkb0
xfs_repair -n /dev/ublkb1
same_bytes /dev/ublkb0 "$dir/exports/ext4"
same_bytes /dev/ublkb1 "$dir/exports/xfs"
write_conf remove >"$conf"
kill -TERM "$gkproxy_pid"
wait "$gkproxy_pid" || fail "gkproxy ended with status $?"
start_conf
