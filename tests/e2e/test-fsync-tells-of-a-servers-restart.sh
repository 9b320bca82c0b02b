#!/bin/bash
# SPDX-License-Identifier: MIT
# unflushed: after a restart of the server with acknowledged writes not flushed exactly one fsync fails.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

restart() {
	stop_server KILL
	bring_up nbdkit_unix file "$dir/disk"
	restarts=$((restarts + 1))
}

write_some() {
	dd if=/dev/urandom of="$device" bs=64k count=4 oflag=direct status=none
}

restarts=0
truncate -s 64M "$dir/disk"
nbdkit_unix file "$dir/disk"
start_gkproxy connections=2 queues=2

step "nothing written, nothing to tell"
restart
flush_device || fail "fsync failed: $(cat "$dir/flush")"

step "written and not flushed: the next fsync fails, and only that one"
write_some
restart
! flush_device || fail "fsync succeeded"
grep -q 'Input/output error' "$dir/flush" || fail "fsync failed in another way: $(cat "$dir/flush")"
logged 'acknowledged writes not flushed'
flush_device || fail "the next fsync failed too"
flush_device

step "written and flushed: none fails"
write_some
flush_device
restart
flush_device || fail "fsync failed: $(cat "$dir/flush")"

stop_gkproxy

step "unflushed = \"ignore\" and \"fua\": none fails"
for policy in ignore fua; do
	start_gkproxy connections=2 queues=2 "unflushed=\"$policy\""
	write_some
	restart
	flush_device || fail "fsync failed: $(cat "$dir/flush")"
	happened reconnects "$(counter reconnects)"
	stop_gkproxy
done
happened restarts "$restarts"
