#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 32M "$dir/disk"
mkfs.ext4 -q -F -d /etc "$dir/disk"

refuses_writes() {
	same "$(blockdev --getro "$device")" 1 "read-only flag"
	! dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct status=none 2>/dev/null ||
		fail "a write was accepted"
	! blockdev --setrw "$device" 2>/dev/null ||
		! dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct status=none 2>/dev/null ||
		fail "a write was accepted after --setrw"
	mount -o ro "$device" /mnt
	cmp /etc/passwd /mnt/passwd
	umount /mnt
}

step "the export is read-only"
nbdkit_unix -r file "$dir/disk"
before=$(sha256sum <"$dir/disk")
start_gkproxy
refuses_writes
stop_gkproxy
stop_server

step "the configuration says read-only"
nbdkit_unix file "$dir/disk"
start_gkproxy read_only=true
refuses_writes
stop_gkproxy
same "$(sha256sum <"$dir/disk")" "$before" "checksum of the server's file"
