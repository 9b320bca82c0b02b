#!/bin/bash
# SPDX-License-Identifier: MIT
# Segments are lost, late and out of order; then a server that is held to a rate.
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
