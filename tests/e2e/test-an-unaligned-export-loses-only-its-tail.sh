#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

size=$(((32 << 20) + 1000))
head -c "$size" /dev/urandom >"$dir/disk"
tail -c 488 "$dir/disk" >"$dir/tail"
nbdkit_unix file "$dir/disk"
start_gkproxy
same "$(blockdev --getsize64 "$device")" $((size - 488)) "size of the device"
grep -i warning "$log" | grep -q '\b488 bytes' || fail "no warning names the 488 bytes left out"
same_bytes "$device" "$dir/disk"

step "the last block is written, the tail stays as it was"
dd if=/dev/zero of="$device" bs=512 seek=$((size / 512 - 1)) count=1 oflag=direct status=none
stop_gkproxy
tail -c 488 "$dir/disk" | cmp - "$dir/tail"
tail -c 1000 "$dir/disk" | head -c 512 | cmp -n 512 - /dev/zero
