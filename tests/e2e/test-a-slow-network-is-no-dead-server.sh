#!/bin/bash
# SPDX-License-Identifier: MIT
# Many large reads go out at once, and over a slow network the last answer takes twice as long as request_timeout:
# the server answers all the time, and is not given up.
. "$(dirname "$0")/../lib/own-network.sh"
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

dd if=/dev/urandom of="$dir/disk" bs=1M count=24 status=none
nbdkit_tcp file "$dir/disk"
start_gkproxy queues=1 connections=1 request_timeout=6
tc qdisc add dev lo root netem rate 18mbit limit 100000

begun=$SECONDS
timeout 120 fio --name=slow --filename="$device" --rw=read --bs=512k --iodepth=48 --size=24m --direct=1 --ioengine=libaio \
	--eta=never --output="$dir/fio" || fail "fio: $(cat "$dir/fio")"
happened "seconds beyond request_timeout" $((SECONDS - begun - 6))
tc qdisc del dev lo root
same "$(counter timeouts)" 0 timeouts
same "$(counter reconnects)" 0 reconnects
same_bytes "$device" "$dir/disk"
