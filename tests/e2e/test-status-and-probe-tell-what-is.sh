#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 64M
start_gkproxy
dd if=/dev/zero of="$device" bs=64k count=4 oflag=direct status=none
dd if="$device" of=/dev/null bs=64k count=4 iflag=direct status=none
same "$(status '.devices | length')" 1 devices
same "$(status '.devices[0] | "\(.name) \(.state) \(.path) \(.size_bytes)"')" \
	"vol0 up /dev/ublkb0 $((64 << 20))" device
status '.devices[0].counters' | tr -d '\n'
echo
status '.devices[0].counters | .bytes_written == 262144 and .bytes_read >= 262144 and .errors == 0' |
	grep -q true || fail "the counters do not fit"
gkproxy status | grep -q '/dev/ublkb0'
same "$(gkproxy status vol0 --json | jq -r '.devices[0].name')" vol0 "name"
! gkproxy status nosuch 2>"$dir/err" || fail "status of an unknown device succeeded"
grep -q nosuch "$dir/err"

step "probe"
gkproxy probe >"$dir/probe"
grep -qi ublk "$dir/probe" || fail "probe does not tell of ublk: $(cat "$dir/probe")"
gkproxy probe "$uri" >"$dir/probe"
grep -q 67108864 "$dir/probe" || fail "probe does not tell the size: $(cat "$dir/probe")"
stop_gkproxy
! gkproxy status 2>"$dir/err" || fail "status succeeded without a daemon"
same "$(grep -c . "$dir/err")" 1 "number of lines status says without a daemon"
