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

# restarted SIGNAL ARG...: the same when gkproxy ends while the server sits on the writes, and the next one sends them.
restarted() {
	local signal="$1" writes_pid
	shift

	rm -f "$dir/held" "$dir/restarted"
	stale_writes "$@" "$dir" &
	writes_pid=$!
	wait_for 60 "the server holds the writes" test -e "$dir/held"
	kill "-$signal" "$gkproxy_pid"
	wait "$gkproxy_pid" || true
	start_conf
	touch "$dir/restarted"
	wait "$writes_pid"
}

step "gkproxy is restarted"
restarted TERM auto timeout 60 || fail "old bytes came back although gkproxy handed the device over"
logged 'stale: /dev/ublkb[0-9]+ is taken over'
step "gkproxy is killed, which ends the connections without a fence"
restarted KILL auto timeout 0.1 || fail "no old byte came back without a fence: this test shows nothing"
