#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

cat >"$conf" <<'END'
colour = "blue";
devices = (
  { name = "vol0"; remote = "nbd://127.0.0.1/"; queue_depth = "deep"; },
  { remote = "nbd://127.0.0.1/"; }
);
END
for arguments in "-t -c $conf" "-c $conf"; do
	status=0
	# shellcheck disable=SC2086  # two or three words
	gkproxy $arguments 2>"$log" || status=$?
	same "$status" 1 "exit status of gkproxy $arguments"
	for expected in "$conf:1: .*colour" "$conf:3: .*queue_depth" "$conf:4: .*name"; do
		grep -qE "^$expected" "$log" || fail "no line like '$expected': $(cat "$log")"
	done
done
nothing_left
gkproxy -t -c deploy/proxy.conf || fail "the sample configuration has mistakes"
