#!/bin/bash
# SPDX-License-Identifier: MIT
# One request in a hundred is answered with an error. fio sees those, and every block whose write was
# acknowledged reads back as written: the stream stays in step.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 64M "$dir/disk"
nbdkit_unix --filter=error file "$dir/disk" error-pread=EIO error-pread-rate=1% \
	error-pwrite=EIO error-pwrite-rate=1% error-file="$dir/errors-on"
start_gkproxy queues=1 connections=1
touch "$dir/errors-on"
fio --name=errors --filename="$device" --eta=never --ioengine=libaio --direct=1 --iodepth=64 --rw=randwrite \
	--bssplit=512/20:4k/50:16k/20:64k/10 --size=16m --verify=crc32c --do_verify=1 \
	--verify_fatal=1 --continue_on_error=io --output-format=json --output="$dir/fio.json" \
	2>"$dir/fio.err" || true
rm "$dir/errors-on"
! grep -i verify "$dir/fio.err" || fail "a block did not verify"
errors=$(jq '.jobs[0].total_err' "$dir/fio.json")
first=$(jq '.jobs[0].first_error // .jobs[0].error' "$dir/fio.json")
echo "   fio saw $errors errors, the first was errno $first"
[ "$errors" -gt 5 ] || fail "fio saw only $errors errors"
same "$first" 5 "the errno that fio saw (EIO is 5)"
jq -e '.jobs[0].read.total_ios > 1000 and .jobs[0].write.total_ios > 1000' "$dir/fio.json" >/dev/null ||
	fail "fio ended early: $(cat "$dir/fio.err")"

step "without errors all is as it should be"
same "$(status '.devices[0].connections[0].state')" up connection
same_bytes "$device" "$dir/disk"
fio_verify afterwards --size=8m
