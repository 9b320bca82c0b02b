#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

server_log=$dir/server.log
nbdkit_unix --filter=log memory 64M logfile="$server_log"
start_gkproxy

# seen REGEX WHAT: the server logged such a request.
seen() {
	grep -qE "$1" "$server_log" || fail "the server saw no $2: $(tail -n 20 "$server_log")"
}

# not_seen REGEX WHAT
not_seen() {
	! grep -qE "$1" "$server_log" || fail "the server saw $2: $(grep -E "$1" "$server_log")"
}

dd if=/dev/urandom of="$device" bs=1M count=8 oflag=direct status=none
not_seen ' Write .*fua=1' "a FUA that nobody asked for"

step "blkdiscard is a TRIM of that range"
blkdiscard -o $((1 << 20)) -l $((2 << 20)) "$device"
seen ' Trim id=[0-9]+ offset=0x100000 count=0x200000 fua=0' "TRIM of 2 MiB at 1 MiB"
cmp -n $((2 << 20)) -i $((1 << 20)):0 "$device" /dev/zero

step "zeroing without unmapping is WRITE_ZEROES with NO_HOLE"
blkdiscard -z -o $((4 << 20)) -l $((1 << 20)) "$device"
seen ' Zero id=[0-9]+ offset=0x400000 count=0x100000 trim=0 fua=0' "WRITE_ZEROES with NO_HOLE"

step "punching a hole is WRITE_ZEROES that may unmap"
fallocate --punch-hole -o $((6 << 20)) -l $((1 << 20)) "$device"
seen ' Zero id=[0-9]+ offset=0x600000 count=0x100000 trim=1 fua=0' "WRITE_ZEROES without NO_HOLE"
cmp -n $((1 << 20)) -i $((6 << 20)):0 "$device" /dev/zero

step "a synchronous direct write is a FUA write"
dd if=/dev/urandom of="$device" bs=4k count=1 seek=3000 oflag=direct,dsync status=none
seen ' Write id=[0-9]+ offset=0xbb8000 count=0x1000 fua=1' "WRITE with FUA"

step "fsync is a FLUSH"
flushes() {
	grep -c ' Flush id=' "$server_log" || true
}
before=$(flushes)
dd if=/dev/urandom of="$device" bs=4k count=1 seek=4000 oflag=direct conv=notrunc,fsync status=none
same "$(flushes)" $((before + 1)) "number of FLUSHes"
