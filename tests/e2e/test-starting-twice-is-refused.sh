#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 64M
start_gkproxy
first=$gkproxy_pid

# second_refused REGEX: like gkproxy_refuses, but the first daemon keeps its device.
second_refused() {
	local status=0

	gkproxy -c "$dir/second.conf" 2>"$dir/second.log" || status=$?
	same "$status" 1 "exit status of the second gkproxy"
	same "$(grep -c . "$dir/second.log")" 1 "number of lines in '$(cat "$dir/second.log")'"
	grep -qiE "$1" "$dir/second.log" || fail "the message does not match '$1': $(cat "$dir/second.log")"
	echo "   it says: $(cat "$dir/second.log")"
	same "$(devices_left | sort | tr '\n' ' ')" "/dev/ublkb0 /dev/ublkc0 " devices
	kill -0 "$first"
	dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none
	same "$(status '.devices[0].name')" vol0 "device of the first daemon"
}

step "with the same configuration"
cp "$conf" "$dir/second.conf"
second_refused 'already|another gkproxy'

step "with another control socket, the same device"
{
	echo "control = { socket = \"$dir/second.sock\"; };"
	cat "$conf"
} >"$dir/second.conf"
second_refused "already attached .*$first"

step "with another name, the same id"
sed -i s/vol0/vol1/ "$dir/second.conf"
second_refused 'ublkb0 exists already'

step "with a state_dir of its own, the same name; also when the first daemon is dead"
{
	echo "state_dir = \"$dir/second\"; control = { socket = \"$dir/second.sock\"; }; log_level = \"error\";"
	echo "devices = ( { name = \"vol0\"; remote = \"$uri\"; } );"
} >"$dir/second.conf"
mkdir "$dir/second"
second_refused 'ublkb0 has this name already.*/run/gkproxy/udev/ublkb0'
kill -KILL "$first"
wait "$first" 2>/dev/null || true
status=0
gkproxy -c "$dir/second.conf" 2>"$dir/second.log" || status=$?
same "$status" 1 "exit status of the second gkproxy"
grep -q 'ublkb0 has this name already' "$dir/second.log" || fail "it says: $(cat "$dir/second.log")"
start_conf
logged 'ublkb0 is taken over'

step "the name is free when its disk is gone"
stop_gkproxy
[ -z "$(find /run/gkproxy/udev -type f)" ] || fail "left: $(ls /run/gkproxy/udev)"
sed 's/log_level = "error";//' "$dir/second.conf" >"$conf"
start_conf
