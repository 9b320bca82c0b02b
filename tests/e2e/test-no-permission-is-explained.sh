#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 64M
{
	echo "state_dir = \"$dir/state\"; control = { socket = \"$dir/state/control.sock\"; };"
	echo "devices = ( { name = \"vol0\"; remote = \"$uri\"; } );"
} >"$conf"
chmod 777 "$dir"
status=0
setpriv --reuid 65534 --clear-groups gkproxy -c "$conf" 2>"$log" || status=$?
same "$status" 1 "exit status of gkproxy"
same "$(grep -c . "$log")" 1 "number of lines it says"
grep -qi 'permission.*root' "$log" || fail "it says: $(cat "$log")"
nothing_left
