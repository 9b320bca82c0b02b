#!/bin/bash
# SPDX-License-Identifier: MIT
# kill -9 of the server and a new one, as often as fio under a mounted ext4 gets on with its work.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

truncate -s 128M "$dir/disk"
nbdkit_unix file "$dir/disk"
# The server's host lives, and with it the page cache: nothing that was acknowledged is lost.
start_gkproxy queues=2 connections=2 'unflushed="ignore"' 'zero_copy_threshold="16K"'
mkfs.ext4 -q "$device"
mount "$device" /mnt
work() {
	fio --name=survivor --directory=/mnt --size=3m --numjobs=2 --ioengine=libaio --direct=1 --iodepth=16 \
		--rw=randwrite --bssplit=4k/60:16k/30:128k/10 --verify=crc32c --do_verify=1 --verify_fatal=1 \
		--end_fsync=1 --eta=never >"$dir/fio.log" 2>&1 || fail "fio: $(tail -n 20 "$dir/fio.log")"
}
keep_working work
kills=0
while [ "$kills" -lt 4 ]; do
	wait_for 60 "fio gets on" more_than "$(($(counter 'reads + .writes') + 100))" 'reads + .writes'
	kill_at_work "$server_pid"
	kills=$((kills + 1))
	bring_up nbdkit_unix file "$dir/disk"
done
enough
happened kills "$kills"
happened reconnects "$(counter reconnects)"
happened replays "$(counter replays)"
same "$(counter errors)" 0 errors
same "$(counter unfenced_replays)" 0 "unfenced replays"
[ "$(counter reconnects)" -ge "$((2 * kills))" ] || fail "a connection did not come back"
umount /mnt
e2fsck -fn "$device"
same_bytes "$device" "$dir/disk"
