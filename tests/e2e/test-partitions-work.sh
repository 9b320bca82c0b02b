#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 128M "$dir/disk"
nbdkit_unix file "$dir/disk"
start_gkproxy
printf 'label: gpt\nsize=64MiB\nsize=+\n' | sfdisk -q "$device"
wait_for 10 "the partitions appear" test -b "${device}p2"
mkfs.xfs -q -f "${device}p1" 2>/dev/null || mkfs.ext4 -q "${device}p1"
mkfs.ext4 -q "${device}p2"
sum() { sha256sum "${device}p1" "${device}p2"; }
before=$(sum)
stop_gkproxy

step "the partitions are there as soon as the disk is attached"
start_gkproxy
wait_for 10 "the partitions appear" test -b "${device}p2"
same "$(sum)" "$before" "checksums of the partitions"
