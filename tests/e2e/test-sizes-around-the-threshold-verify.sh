#!/bin/bash
# SPDX-License-Identifier: MIT
# Requests on both sides of zero_copy_threshold share connections: some leave from user memory and arrive
# through it, the others go through their own pages where the kernel has a way to do that.
. "$(dirname "$0")/../lib/functions.sh"

# check MIN-DIRECT-BYTES MAX-DIRECT-BYTES SETTING...
check() {
	local min=$1 max=$2 path errors fallbacks direct sends receives
	shift 2

	start_gkproxy queues=1 connections=2 "$@"
	fio_verify threshold --size=8m \
		--bssplit=512/10:12k/10:15872/15:16k/15:16896/15:17k/10:32k/10:64k/10:512k/5
	read -r path errors fallbacks direct sends receives < <(status '.devices[0] | .data_path as $path | .counters |
		"\($path) \(.errors) \(.fallbacks) \(.bytes_direct) \(.direct_sends) \(.direct_receives)"')
	same "$errors" 0 errors
	same "$fallbacks" 0 fallbacks
	echo "   $path: $direct bytes direct, $sends sends, $receives receives"
	if [ "$path" = copy ]; then
		same "$direct" 0 "bytes sent and received directly"
	else
		[ "$direct" -ge "$min" ] && [ "$direct" -le "$max" ] ||
			fail "$direct bytes went directly, not $min to $max"
	fi
	same_bytes "$device" "$dir/disk"
	stop_gkproxy
}

truncate -s 32M "$dir/disk"
nbdkit_tcp file "$dir/disk"
step "some above, some below"
check $((2 << 20)) $((16 << 20)) 'zero_copy_threshold="16K"'
step "all through their own pages"
check $((8 << 20)) $((16 << 20)) zero_copy_threshold=512
step "none"
check 0 0 'zero_copy_threshold="32M"'
