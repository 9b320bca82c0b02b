#!/bin/bash
# SPDX-License-Identifier: MIT
# send_zc: the network refers to the pages of large writes until the server has acknowledged them.
. "$(dirname "$0")/../lib/functions.sh"

counter() {
	status ".devices[0].counters.$1"
}

truncate -s 32M "$dir/disk"
step "TCP"
nbdkit_tcp file "$dir/disk"
start_gkproxy queues=1 connections=2 send_zc=true reconnect_timeout=1.0 'zero_copy_threshold="16K"'
fio_verify zero-copy --size=8m
read -r path errors zc direct copied fallbacks < <(status '.devices[0] | .data_path as $path | .counters |
	"\($path) \(.errors) \(.zc_sends) \(.direct_sends) \(.zc_copied) \(.fallbacks)"')
echo "   $path: $zc of $direct direct sends, $copied copied by the network, $fallbacks fallbacks"
same "$errors" 0 errors
same "$fallbacks" 0 fallbacks
if [ "$path" = copy ]; then
	same "$zc" 0 "zero-copy sends"
else
	[ "$zc" -gt 50 ] || fail "only $zc sends were zero-copy"
fi
same_bytes "$device" "$dir/disk"

step "the server dies with requests in flight"
fio --name=cut --filename="$device" --ioengine=libaio --direct=1 --iodepth=32 --rw=randwrite --bs=256k \
	--size=32m --time_based --runtime=60 --eta=never --output="$dir/fio.log" 2>/dev/null &
fio_pid=$!
before=$(counter writes)
more_writes() {
	[ "$(counter writes)" -gt $((before + 20)) ]
}
wait_for 30 "fio writes" more_writes
stop_server KILL
wait_for 60 "fio sees errors" gone "$fio_pid"
! wait "$fio_pid" || fail "fio did not see the errors"
stop_gkproxy

step "a Unix socket has none"
nbdkit_unix file "$dir/disk"
start_gkproxy send_zc=true 'zero_copy_threshold="16K"'
fio_verify unix --size=4m
same "$(counter zc_sends)" 0 "zero-copy sends"
same_bytes "$device" "$dir/disk"
