#!/bin/bash
# SPDX-License-Identifier: MIT
# Socket buffers of one page on both sides: no payload fits. Large ones are sent and received by io_uring's
# workers then, which wait in the socket; whatever interrupts them (a debugger, a freezer, here SIGSTOP)
# leaves a part sent and a part not, and everything linked behind cancelled.
. "$(dirname "$0")/../lib/own-network.sh"
. "$(dirname "$0")/../lib/functions.sh"

requests_ended() {
	awk '{ print $1 + $5 }' "/sys/block/${device#/dev/}/stat"
}
ended_since() {
	[ "$(requests_ended)" != "$1" ]
}

# Once for each request that ends, at the most.
interrupt_until_killed() {
	local stat
	while :; do
		kill -STOP "$gkproxy_pid"
		# A SIGCONT that came before every thread stopped would take the SIGSTOP back unseen.
		for stat in "/proc/$gkproxy_pid/task/"*/stat; do
			until [[ $(cat "$stat" 2>/dev/null || echo ') T') == *') T'* ]]; do :; done
		done
		kill -CONT "$gkproxy_pid"
		wait_for 300 "a request has ended" ended_since "$(requests_ended)"
	done
}

echo '4096 4096 4096' >/proc/sys/net/ipv4/tcp_wmem
echo '4096 4096 4096' >/proc/sys/net/ipv4/tcp_rmem
truncate -s 4M "$dir/disk"
nbdkit_tcp file "$dir/disk"
start_gkproxy queues=1 connections=1 'zero_copy_threshold="32K"'

step "mixed sizes"
fio_verify mixed --size=512k
read -r errors small receives < <(status '.devices[0].counters | "\(.errors) \(.partial_sends) \(.partial_receives)"')
same "$errors" 0 errors
echo "   partial sends: $small, partial receives: $receives"
[ "$small" -gt 0 ] || fail "no send was partial: the test proves nothing"

step "large ones alone, interrupted"
interrupt_until_killed &
interrupter=$!
sends=$small receives=0
# An interruption counts only when it finds a worker in the socket: more rounds, until two have.
for round in {1..20}; do
	fio_verify "large-$round" --size=2m --bssplit=1m/100 --iodepth=4
	read -r errors sends receives direct < <(status '.devices[0].counters |
		"\(.errors) \(.partial_sends) \(.partial_receives) \(.direct_sends) sends, \(.direct_receives) receives"')
	same "$errors" 0 errors
	echo "   partial sends: $((sends - small)), partial receives: $receives; direct: $direct"
	[ "$sends" = "$small" ] || [ "$receives" = 0 ] || break
done
kill "$interrupter"
wait "$interrupter" 2>/dev/null || true
kill -CONT "$gkproxy_pid"
[ "$sends" -gt "$small" ] || fail "no large send was partial: the test proves nothing"
[ "$receives" -gt 0 ] || fail "no receive was partial: the test proves nothing"
same_bytes "$device" "$dir/disk"
