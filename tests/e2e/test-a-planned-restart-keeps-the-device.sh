#!/bin/bash
# SPDX-License-Identifier: MIT
# on_exit = "keep": SIGTERM ends gkproxy, a mounted file system waits for the next one and goes on.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 128M "$dir/disk"
uri="nbd+unix:///?socket=$dir/nbd.sock"
nbdkit -f -t 1 -U "$dir/nbd.sock" file "$dir/disk" 2>"$dir/nbdkit.log" &
server_pids+=($!)
wait_for 30 "nbdkit listens" test -S "$dir/nbd.sock"
start_gkproxy 'on_exit="keep"'
mkfs.ext4 -q "$device"
mkdir -p /mnt
mount "$device" /mnt

dd if=/dev/urandom of="$dir/data" bs=1M count=8 status=none
(for i in 1 2 3 4; do cp "$dir/data" "/mnt/$i" && sync "/mnt/$i" || exit 1; done) &
copy_pid=$!
written() { [ "$(status '.devices[0].counters.bytes_written')" -gt 4000000 ]; }
wait_for 60 "the copies begin" written
kill -TERM "$gkproxy_pid"
wait "$gkproxy_pid" || fail "gkproxy ended with status $?"
[ -b "$device" ] || fail "the device is gone"
one_device
start_conf
logged 'ublkb0 is taken over'
wait "$copy_pid" || fail "a copy saw an error"
for i in 1 2 3 4; do
	cmp "$dir/data" "/mnt/$i" || fail "file $i differs"
done

step "removed while mounted: what is in the page cache is written out first"
cp "$dir/data" /mnt/late
kill -TERM "$gkproxy_pid"
wait "$gkproxy_pid" || fail "gkproxy ended with status $?"
gkproxy_pid=
logged 'removed while it is mounted'
umount /mnt
start_conf
mount "$device" /mnt
cmp "$dir/data" /mnt/late || fail "the late file differs"
umount /mnt
e2fsck -fn "$device" >"$dir/fsck" 2>&1 || fail "e2fsck: $(cat "$dir/fsck")"
