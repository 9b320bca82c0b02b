#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 64M "$dir/disk"
nbd_server vol0 "$dir/disk" "flush = true" "fua = true" "trim = true"
start_gkproxy
fio_verify nbd-server
same_bytes "$device" "$dir/disk"
mkfs.ext4 -q "$device"
e2fsck -fn "$device"
