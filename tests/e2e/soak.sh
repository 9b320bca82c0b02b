#!/bin/bash
# SPDX-License-Identifier: MIT
# Ten minutes (GK_SOAK_SECONDS) of writes at mixed sizes, read back and verified. Not part of the ordinary
# run: tests/run.sh soak.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 512M "$dir/disk"
nbdkit_unix file "$dir/disk"
start_gkproxy
deadline=$((SECONDS + ${GK_SOAK_SECONDS:-600}))
pass=0
while [ "$SECONDS" -lt "$deadline" ]; do
	pass=$((pass + 1))
	fio_verify "pass-$pass" --size=480m --randseed="$pass" --verify_backlog=512
	same "$(status '.devices[0].counters.errors')" 0 errors
	echo "   $((deadline - SECONDS)) s left"
done
same_bytes "$device" "$dir/disk"
