#!/bin/bash
# SPDX-License-Identifier: MIT
# As many requests in flight as ublk has tags: nothing is lost, neither with a server that answers nor with one
# that dies with all of them.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

all_in_flight() {
	[ "$(awk '{ print $1 + $2 }' /sys/block/ublkb0/inflight)" -ge 4000 ]
}

# A small maximum keeps the buffers of data path copy small.
serve() {
	nbdkit_unix -t 1 --filter=blocksize-policy file "$dir/disk" blocksize-minimum=512 \
		blocksize-preferred=4096 blocksize-maximum=16384
}

truncate -s 24M "$dir/disk"
serve
start_gkproxy queue_depth=4096 queues=1 connections=1
echo 4096 >/sys/block/ublkb0/queue/nr_requests 2>/dev/null || true
echo none >/sys/block/ublkb0/queue/scheduler
kill -STOP "$server_pid"
fio --name=many --filename="$device" --ioengine=libaio --direct=1 --iodepth=4200 --rw=randwrite --bs=4k \
	--size=24m --verify=crc32c --verify_fatal=1 --do_verify=1 --eta=never --output="$dir/fio.log" &
fio_pid=$!
wait_for 120 "4000 requests are in flight" all_in_flight
echo "   in flight: $(cat /sys/block/ublkb0/inflight)"
kill -KILL "$server_pid"
wait_for 30 "the server ends" gone "$server_pid"
serve
wait "$fio_pid" || fail "fio: $(cat "$dir/fio.log")"
happened replays "$(counter replays)"
[ "$(counter replays)" -ge 3000 ] || fail "fewer requests than that were sent again"
same "$(counter errors)" 0 "errors"
