#!/bin/bash
# SPDX-License-Identifier: MIT
# Not all errors are EIO: the program sees what the server said.
. "$(dirname "$0")/../lib/functions.sh"

# write_fails_with ERRNO-NAME MESSAGE
write_fails_with() {
	nbdkit_unix --filter=error memory 1M error-pwrite="$1" error-pwrite-rate=100%
	start_gkproxy
	! LC_ALL=C dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct status=none 2>"$dir/dd" ||
		fail "the write succeeded"
	grep -q "$2" "$dir/dd" || fail "server says $1, program sees: $(cat "$dir/dd")"
	echo "   $1: $(cat "$dir/dd")"
	stop_gkproxy
	stop_server
}

write_fails_with EIO 'Input/output error'
write_fails_with ENOSPC 'No space left on device'
