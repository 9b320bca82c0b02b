#!/bin/bash
# SPDX-License-Identifier: MIT
# As many devices as ublk allows unless it is told otherwise, all at work at once; every one ends.
. "$(dirname "$0")/../lib/functions.sh"

mkdir "$dir/disks"
{
	echo "defaults = { queue_depth = 8; queues = 1; connections = 1; };"
	echo "devices = ("
	for ((i = 0; i < 64; i++)); do
		truncate -s 2M "$dir/disks/$i"
		[ "$i" = 0 ] || echo ","
		echo "  { name = \"vol$i\"; id = $i; remote = \"nbd+unix:///$i?socket=$dir/nbd.sock\"; }"
	done
	echo ");"
} >"$conf"
nbdkit_unix file dir="$dir/disks"
start_conf
same "$(find /dev -name 'ublkb[0-9]*' | wc -l)" 64 "number of devices"
same "$(status '[.devices[] | select(.state == "up")] | length')" 64 "devices that are up"

jobs=()
for ((i = 0; i < 64; i++)); do
	jobs+=(--name="job$i" --filename="/dev/ublkb$i")
done
fio --ioengine=libaio --direct=1 --iodepth=8 --rw=randwrite --bs=16k --size=256k --verify=crc32c --verify_fatal=1 \
	--do_verify=1 --thread --eta=never --output="$dir/fio.log" "${jobs[@]}" || fail "fio: $(cat "$dir/fio.log")"
same "$(status '[.devices[].counters.errors] | add')" 0 "errors"
# What each wrote is in its own export.
for ((i = 0; i < 64; i++)); do
	cmp -n 262144 "/dev/ublkb$i" "$dir/disks/$i" || fail "/dev/ublkb$i has bytes of another one"
done
