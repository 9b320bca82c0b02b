#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

qemu-img create -q -f qcow2 "$dir/disk.qcow2" 64M
qemu_nbd -f qcow2 -e 4 --discard=unmap "$dir/disk.qcow2"
start_gkproxy
fio_verify qemu-nbd
blkdiscard -o 0 -l $((32 << 20)) "$device"
cmp -n $((32 << 20)) "$device" /dev/zero
sha256sum <"$device" >"$dir/sum"
stop_gkproxy
stop_server
qemu-img check -q "$dir/disk.qcow2"
qemu-img convert -f qcow2 -O raw "$dir/disk.qcow2" "$dir/raw"
same "$(sha256sum <"$dir/raw")" "$(cat "$dir/sum")" "checksum of the image"
