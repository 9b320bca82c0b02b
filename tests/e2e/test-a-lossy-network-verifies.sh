#!/bin/bash
# SPDX-License-Identifier: MIT
# Segments are lost, late, out of order and duplicated; then a server that is held to a rate.
. "$(dirname "$0")/../lib/own-network.sh"
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 8M "$dir/disk"
# Segments as on a real network: whole 64 KiB ones hide most of what can happen to them.
ip link set lo mtu 1500
tc qdisc add dev lo root netem delay 1ms 1ms loss 1% limit 100000
nbdkit_tcp file "$dir/disk"
start_gkproxy queues=1 connections=2 'zero_copy_threshold="16K"'
fio_verify lossy --size=4m
same "$(status '.devices[0].counters.errors')" 0 errors
tc -s qdisc show dev lo | tee "$dir/tc" | sed -n 's/^ Sent/   sent/p'
awk '/dropped/ { sub(/.*dropped /, ""); exit $1 + 0 == 0 }' "$dir/tc" || fail "no packet was lost"
same_bytes "$device" "$dir/disk"

step "segments out of order, twice, and one in twenty lost"
# tcp NAME: a counter of this network's TCP.
tcp() { awk -v name="$1" '$1 == "TcpExt:" { if (!n) { for (i = 1; i <= NF; i++) if ($i == name) n = i } else print $n }' /proc/net/netstat; }
for fault in "TCPOFOQueue reorder 25% 50%" "TCPDSACKOldSent duplicate 5%" "- loss 5%"; do
	read -r name how <<<"$fault"
	# shellcheck disable=SC2086
	tc qdisc replace dev lo root netem delay 1ms limit 100000 $how
	before=$(tcp "$name")
	fio_verify "${how%% *}" --size=1m
	tc -s qdisc show dev lo >"$dir/tc"
	if [ "${how%% *}" = loss ]; then
		count=$(awk '/dropped/ { sub(/.*dropped /, ""); print $1 + 0 }' "$dir/tc")
	else
		count=$(($(tcp "$name") - before))
	fi
	echo "   ${how%% *}: $count segments"
	[ "$count" -gt 0 ] || fail "no segment met with this: ${how%% *}"
done
same "$(status '.devices[0].counters.errors')" 0 errors
same_bytes "$device" "$dir/disk"
stop_gkproxy
stop_server
tc qdisc del dev lo root

step "a rate"
nbdkit_tcp --filter=rate file "$dir/disk" rate=32M burstiness=0.1
start_gkproxy queues=1 connections=1 'zero_copy_threshold="16K"'
started=${EPOCHREALTIME/[.,]/}
fio_verify rate --size=4m
milliseconds=$(((${EPOCHREALTIME/[.,]/} - started) / 1000))
# 8 MiB at 4 MB a second, less the burst: the filter was at work.
[ "$milliseconds" -gt 1500 ] || fail "took $milliseconds ms only: the rate was not limited"
same "$(status '.devices[0].counters.errors')" 0 errors
same_bytes "$device" "$dir/disk"
