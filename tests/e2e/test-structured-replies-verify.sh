#!/bin/bash
# SPDX-License-Identifier: MIT
# qemu-nbd answers READs of a sparse image in chunks of data and of holes, straight into the requests.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 32M "$dir/disk"
qemu_nbd -f raw --discard=unmap "$dir/disk"
start_gkproxy queues=1 connections=1 structured_replies=true 'zero_copy_threshold="16K"'

step "data between holes"
for kib in 4 100 260 1000 2052; do
	dd if=/dev/urandom of="$device" bs=4k count=3 seek=$((kib / 4)) oflag=direct conv=notrunc status=none
done
blkdiscard -o $((1 << 20)) -l 4096 "$device"
dd if="$device" of="$dir/read" bs=1M count=4 iflag=direct status=none
same_bytes "$dir/read" "$dir/disk"

step "verified writes"
fio_verify chunks --size=8m
same "$(status '.devices[0].counters.errors')" 0 errors
same_bytes "$device" "$dir/disk"
