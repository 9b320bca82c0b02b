#!/bin/bash
# SPDX-License-Identifier: MIT
# Ten minutes (GK_SOAK_SECONDS) of writes at mixed sizes, read back and verified. Not part of the ordinary
# run: tests/run.sh soak. Under the names soak-ktls and soak-tls over TLS, by the kernel and by gkproxy.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 512M "$dir/disk"
case $test_name in
soak)
	nbdkit_unix file "$dir/disk"
	start_gkproxy
	;;
*)
	. "$(dirname "$0")/../lib/tls.sh"
	nbdkit_tls file "$dir/disk"
	if [ "$test_name" = soak-ktls ]; then
		start_gkproxy "$(with_certs)"
		tls_is "$full"
	else
		start_gkproxy "$(with_certs 'ktls = "off";')"
		tls_is user
	fi
	;;
esac
deadline=$((SECONDS + ${GK_SOAK_SECONDS:-600}))
pass=0
while [ "$SECONDS" -lt "$deadline" ]; do
	pass=$((pass + 1))
	fio_verify "pass-$pass" --size=480m --randseed="$pass" --verify_backlog=512
	same "$(status '.devices[0].counters.errors')" 0 errors
	echo "   $((deadline - SECONDS)) s left"
done
same_bytes "$device" "$dir/disk"
