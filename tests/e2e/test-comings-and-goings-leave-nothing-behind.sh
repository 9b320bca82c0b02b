#!/bin/bash
# SPDX-License-Identifier: MIT
# Devices that are attached and detached, GK_GROWTH_ROUNDS (20) times, and connections that are lost and made, a fifth as
# often, for each waits for the back-off: the daemon has as many descriptors and threads as before, and as much memory. As
# all of it is locked, RssAnon is what it has.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

rounds=${GK_GROWTH_ROUNDS:-20}
losses=$(((rounds + 4) / 5))
slack_kib=256 # what malloc() keeps for threads that come and go; a lost buffer or stack is more

descriptors() { find "/proc/$gkproxy_pid/fd" -mindepth 1 | wc -l; }
threads() { find "/proc/$gkproxy_pid/task" -mindepth 1 -maxdepth 1 | wc -l; }
memory_kib() { awk '/^RssAnon/ { print $2 }' "/proc/$gkproxy_pid/status"; }

remember() {
	had_descriptors=$(descriptors) had_threads=$(threads) had_kib=$(memory_kib) begun=$SECONDS
}

as_before() {
	[ "$(descriptors) $(threads)" = "$had_descriptors $had_threads" ]
}

# not_grown TIMES WHAT
not_grown() {
	# A client's connection and a job's thread may take a moment to go.
	wait_for 10 "$had_descriptors descriptors, $had_threads threads as before; now $(descriptors), $(threads)" as_before
	local grown=$(($(memory_kib) - had_kib))

	echo "   $1 times $2 in $((SECONDS - begun)) s: +0 of $had_descriptors descriptors, +0 of $had_threads threads, $grown KiB more than $had_kib"
	((grown <= slack_kib)) || fail "the daemon has grown by $grown KiB"
}

# come_and_go TIMES
come_and_go() {
	local i

	for ((i = 0; i < $1; i++)); do
		gkproxy attach "$uri" --name two --id 1 >/dev/null
		gkproxy detach two
	done
}

established() { ss -Htn state established "dport = :10809"; }

connections_differ() {
	local now

	now=$(established | awk '{ print $3 }' | sort)
	[ "$(wc -l <<<"$now")" = 2 ] && ! grep -qFx -f <(echo "$old") <<<"$now"
}

# lose_connections TIMES: both.
lose_connections() {
	local i

	for ((i = 0; i < $1; i++)); do
		old=$(established | awk '{ print $3 }' | sort)
		ss -K state established "dport = :10809" >/dev/null
		wait_for 30 "the connections come back" connections_differ
	done
}

modprobe -q tcp_diag || true # for ss -K; where it is built in there is no module
nbdkit_tcp -t 1 memory 64M
start_gkproxy queues=1 connections=2 queue_depth=16
come_and_go 10
remember
come_and_go "$rounds"
not_grown "$rounds" "attached and detached"

lose_connections 2
wait_for 30 "all connections are back" is_up
before=$(counter reconnects)
remember
lose_connections "$losses"
wait_for 30 "all connections are back" is_up
[ $(($(counter reconnects) - before)) -ge $((2 * losses)) ] || fail "fewer reconnects than connections lost"
not_grown "$losses" "two connections lost"

step "growth is seen"
gkproxy attach "$uri" --name two --id 1 --queue_depth 16 --connections 1 --queues 1 >/dev/null
! as_before || fail "a device more is no descriptor and no thread more"
(($(memory_kib) - had_kib > slack_kib)) || fail "a device more is no memory more"
