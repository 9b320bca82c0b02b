#!/bin/bash
# SPDX-License-Identifier: MIT
# The main job: a file system on the remote disk, files written, the daemon stopped and started again.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 256M "$dir/disk"
nbdkit_unix file "$dir/disk"
start_gkproxy
mkfs.ext4 -q "$device"
mount "$device" /mnt
mkdir /mnt/tree
for i in 1 2 3 4 5 6 7 8; do
	head -c "$((i * i * 12345))" /dev/urandom >"/mnt/tree/$i"
done
cp /usr/bin/nbdkit /mnt/
(cd /mnt && sha256sum nbdkit tree/* >"$dir/sums")
umount /mnt
e2fsck -fn "$device"
stop_gkproxy

step "what the server holds is a clean file system"
e2fsck -fn "$dir/disk"

step "attached again, the files are the same"
start_gkproxy
mount "$device" /mnt
(cd /mnt && sha256sum --quiet -c "$dir/sums")
rm -r /mnt/tree
umount /mnt
e2fsck -fn "$device"
