#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory runs short while verified I/O runs: one in twenty of the allocations that the kernel makes for the
# queue's thread fails, among them those for lending the pages of a merged request. Such a request is copied,
# counted as a fallback, and no byte is lost. The kernel has CONFIG_FAILSLAB, as those of the series do.
. "$(dirname "$0")/../lib/functions.sh"

knobs=/sys/kernel/debug/failslab
[ -d "$knobs" ] || fail "this kernel cannot make allocations fail (CONFIG_FAILSLAB)"
truncate -s 32M "$dir/disk"
nbdkit_tcp file "$dir/disk"
start_gkproxy queues=1 connections=2 'zero_copy_threshold="16K"'

echo Y >"$knobs/task-filter"
echo N >"$knobs/ignore-gfp-wait"
echo 0 >"$knobs/verbose"
echo -1 >"$knobs/times"
for task in "/proc/$gkproxy_pid/task/"*; do
	case $(cat "$task/comm") in
	gk0q*) echo 1 >"$task/make-it-fail" ;;
	esac
done
echo 5 >"$knobs/probability"
# Neighbours submitted together become one request of many bios.
fio_verify merged --size=24m --rw=write --bssplit=16k --iodepth_batch_submit=32 --iodepth_batch_complete_min=32
fio_verify mixed --size=8m --bssplit=4k/20:16k/20:64k/30:256k/30
echo 0 >"$knobs/probability"
read -r path errors fallbacks replays direct < <(status '.devices[0] | .data_path as $path | .counters |
	"\($path) \(.errors) \(.fallbacks) \(.replays) \(.bytes_direct)"')
echo "   $path: $fallbacks fallbacks, $replays replays, $direct bytes direct"
same "$errors" 0 errors
[ "$fallbacks" -gt 0 ] || fail "every page was lent: the test proves nothing"
[ "$direct" -gt 0 ] || fail "no page was lent: the test proves nothing"
same_bytes "$device" "$dir/disk"
