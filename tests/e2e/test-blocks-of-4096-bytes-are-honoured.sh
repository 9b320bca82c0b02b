#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 64M "$dir/disk"
nbdkit_unix --filter=blocksize-policy file "$dir/disk" blocksize-minimum=4096 \
	blocksize-preferred=65536 blocksize-maximum=128K blocksize-error-policy=error
start_gkproxy
same "$(blockdev --getss "$device")" 4096 "logical block size"
! dd if="$device" of=/dev/null bs=512 count=1 iflag=direct status=none 2>/dev/null ||
	fail "a read of 512 bytes was accepted"
# Larger requests than the server takes: one of them refused would be an I/O error.
fio_verify 4096 --bssplit=4k/50:64k/20:128k/10:1m/20
same_bytes "$device" "$dir/disk"
mkfs.ext4 -q "$device"
mount "$device" /mnt
cp /usr/bin/nbdkit /mnt/
umount /mnt
e2fsck -fn "$device"
