#!/bin/bash
# SPDX-License-Identifier: MIT
# The delay filter answers reads later than writes that came after them, on one connection.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 8M "$dir/disk"
nbdkit_unix --filter=log --filter=delay file "$dir/disk" rdelay=50ms wdelay=1ms logfile="$dir/server.log"
start_gkproxy queues=1 connections=1
fio --name=mixed --filename="$device" --eta=never --ioengine=libaio --direct=1 --iodepth=32 --rw=randrw \
	--bs=4k --size=8m --io_size=2m --output="$dir/fio.log"
same_bytes "$device" "$dir/disk"
stop_gkproxy

step "replies came in another order than the requests"
# The log filter ends the line of a reply with its request's number: "...Read id=7 return=0".
awk '/\.\.\.(Read|Write) id=/ { sub(/.*id=/, ""); n = $1 + 0; if (n < last) overtaken++; last = n }
     END { print "   overtaken: " overtaken + 0; exit !overtaken }' "$dir/server.log" ||
	fail "no reply was overtaken: the test proves nothing"
