#!/bin/bash
# SPDX-License-Identifier: MIT
# gkproxy probe tells of the devices that a dead gkproxy left, and how to get them back or rid of them.
. "$(dirname "$0")/../lib/functions.sh"

orphans() { gkproxy probe --json | jq -r ".orphans | $1"; }
is_quiesced() { [ "$(orphans '.[0].state')" = quiesced ]; }
no_orphans() { [ "$(orphans length)" = 0 ]; }

kill_it() {
	kill -KILL "$gkproxy_pid"
	wait "$gkproxy_pid" 2>/dev/null || true
	wait_for 60 "the kernel has noticed" is_quiesced
}

nbdkit_unix memory 64M
same "$(orphans length)" 0 "orphans before anything"
start_gkproxy
same "$(orphans length)" 0 "orphans while gkproxy serves its device"
! gkproxy probe --remove 0 2>"$dir/err" || fail "a device that is served was removed"
grep -q 'is being served' "$dir/err" || fail "other message: $(cat "$dir/err")"

step "killed: it is listed with its name"
kill_it
same "$(orphans '.[] | "\(.id) \(.path) \(.size_bytes) \(.gkproxy) \(.name)"')" \
	"0 /dev/ublkb0 $((64 << 20)) true vol0" orphan
gkproxy probe | sed -n '/no process serves/,$p' | tee "$dir/text"
grep -q 'gkproxy -c FILE' "$dir/text" || fail "the text does not tell how to recover it"
same "$(gkproxy probe --json --state-dir "$dir" | jq -r '.orphans[0].name')" null "name without its note"

step "what the text says works: recovered"
start_conf
logged 'is taken over'
same "$(orphans length)" 0 "orphans after the recovery"

step "and removed, with what waits in it"
kill_it
dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct status=none 2>"$dir/dd" &
dd_pid=$!
wait_for 30 "a write waits" grep -q "(dd) D" "/proc/$dd_pid/stat"
eval "$(orphans '.[0].remove')"
wait_for 30 "it is gone" no_orphans
! wait "$dd_pid" || fail "a write to a removed device succeeded"
gkproxy_pid=
nothing_left
start_conf
same "$(orphans length)" 0 "orphans at the end"
! grep -q 'taken over' "$log" || fail "the removed device was taken over"
