#!/bin/bash
# SPDX-License-Identifier: MIT
# A server sits on the writes of a dead connection for seconds while their blocks are rewritten: the fence keeps the
# old bytes from coming back, and without it they do. tests/e2e/stale_writes.c is the server and its client.
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 1M
start_gkproxy data_path='"copy"'
for path in copy registered group; do
	[ "$(gkproxy probe --json | jq ".data_paths.$path.available")" = true ] || continue
	step "$path"
	stale_writes "$path" timeout 60 || fail "old bytes came back in spite of the fence"
	stale_writes "$path" strict 0.1 || fail "old bytes came back in spite of the strict fence"
	stale_writes "$path" timeout 0.1 || fail "no old byte came back without a fence: this test shows nothing"
done
logged 'did not end within fence_timeout'

# restarted HOW ARG...: the same when gkproxy ends while the server sits on the writes, and the next one sends them.
# HOW: TERM; killed; late: killed, and what fences gives up soon; all: killed, and what fences before it.
restarted() {
	local how="$1" signal=KILL writes_pid
	local args=("${@:2}" "$dir")

	rm -f "$dir/held" "$dir/restarted" "$dir/waits"
	case $how in
	TERM) signal=TERM ;;
	killed) args+=(killed) ;;
	all) args+=(unfenced) ;;
	esac
	stale_writes "${args[@]}" &
	writes_pid=$!
	wait_for 60 "the server holds the writes" test -e "$dir/held"
	if [ "$how" = all ]; then
		kill -KILL "$(cat /run/gkproxy/stale.fence)"
		wait_for 10 "gkproxy says so" grep -q 'gk-fence is gone' "$log"
	fi
	# By its name, as many do: that must not end gk-fence.
	pkill "-$signal" gkproxy
	wait "$gkproxy_pid" || true
	start_conf
	touch "$dir/restarted"
	if [ "$how" = killed ]; then
		wait_for 30 "the next gkproxy waits" grep -q 'stale: waiting for the connections of the former' "$log"
		touch "$dir/waits"
	fi
	wait "$writes_pid"
}

step "gkproxy is restarted"
restarted TERM auto timeout 60 || fail "old bytes came back although gkproxy handed the device over"
logged 'stale: /dev/ublkb[0-9]+ is taken over'
step "gkproxy is killed"
restarted killed auto timeout 60 || fail "old bytes came back although gkproxy was only killed"
restarted killed auto strict 0.1 || fail "old bytes came back in spite of the strict fence"
step "gkproxy is killed, and nothing fences in time"
restarted late auto timeout 0.1 || fail "no old byte came back without a fence: this test shows nothing"
logged 'stale: not all connections of the former gkproxy are known to have ended'
step "gkproxy is killed with what fences"
restarted all auto timeout 60 || fail "no old byte came back without a fence: this test shows nothing"
logged 'stale: not all connections of the former gkproxy are known to have ended'
