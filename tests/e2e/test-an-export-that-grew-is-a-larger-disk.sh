#!/bin/bash
# SPDX-License-Identifier: MIT
# On the next reconnect, or when the next gkproxy takes the device over, growth is passed on to the kernel, where that
# has UBLK_F_UPDATE_SIZE (6.16); a mounted ext4 grows into it.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

truncate -s 64M "$dir/disk"
nbdkit_unix file "$dir/disk"
start_gkproxy 'unflushed="ignore"'
mkfs.ext4 -q "$device"
mount "$device" /mnt
head -c 20000000 /dev/urandom >/mnt/old
sync /mnt/old
stop_server KILL
truncate -s 160M "$dir/disk"
bring_up nbdkit_unix file "$dir/disk"
happened reconnects "$(counter reconnects)"

if gkproxy probe | grep -q UBLK_F_UPDATE_SIZE; then
	logged 'the export grew from 67108864 to 167772160 bytes'
	same "$(size_of "$device")" $((160 << 20)) "size of the device"
	same "$(status '.devices[0].size_bytes')" $((160 << 20)) "size in the status"
	resize2fs "$device"
	head -c 60000000 /dev/urandom >/mnt/new || fail "no room in the file system that grew"
	sync /mnt/new
else
	logged 'which this kernel cannot pass on'
	same "$(size_of "$device")" $((64 << 20)) "size of the device"
fi
step "it grows while gkproxy is dead, too"
kill -KILL "$gkproxy_pid"
wait "$gkproxy_pid" 2>/dev/null || true
stop_server KILL
truncate -s 192M "$dir/disk"
nbdkit_unix file "$dir/disk"
start_conf
logged 'ublkb0 is taken over'
if gkproxy probe | grep -q UBLK_F_UPDATE_SIZE; then
	logged 'the export grew from 167772160 to 201326592 bytes'
	same "$(size_of "$device")" $((192 << 20)) "size of the device"
	resize2fs "$device"
else
	logged 'which this kernel cannot pass on'
	same "$(size_of "$device")" $((64 << 20)) "size of the device"
fi
same "$(status '.devices[0].size_bytes')" "$(size_of "$device")" "size in the status"
(cd /mnt && find . -type f -exec sha256sum {} + >"$dir/sums")
umount /mnt
e2fsck -fn "$device"
stop_gkproxy
start_gkproxy
same "$(size_of "$device")" $((192 << 20)) "size of the device that is attached anew"
mount "$device" /mnt
(cd /mnt && sha256sum --quiet -c "$dir/sums")
umount /mnt
