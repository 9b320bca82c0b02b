#!/bin/bash
# SPDX-License-Identifier: MIT
# TLS 1.2 and 1.3, certificates and keys, by the kernel in both directions, in one, and in none.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/tls.sh"

gkproxy probe --json >"$dir/probe"
best=$(jq -r '.data_paths | if .group.available then "group" elif .registered.available then "registered" else "copy" end' "$dir/probe")
truncate -s 4M "$dir/disk"

# check NAME TLS-MODE TLS-VERSION DATA-PATH SETTING...: direct counts say whether pages of requests were used.
check() {
	local name=$1 mode=$2 version=$3 path=$4 sent received
	shift 4

	step "$name"
	start_gkproxy 'zero_copy_threshold="16K"' "$@"
	# A kernel may have TLS but not this cipher, nor therefore the data path.
	if [ "$name" = chacha ] && [ "$(status '.devices[0].connections[0].tls')" = user ]; then
		mode=user path=copy
	fi
	tls_is "$mode" "$version"
	same "$(status '.devices[0].data_path')" "$path" "data path"
	fio_verify "$name" --size=2m
	same "$(status '.devices[0].counters.errors')" 0 errors
	same "$(status '.devices[0].counters.replays')" 0 replays
	read -r sent received < <(status '.devices[0].counters | "\(.direct_sends) \(.direct_receives)"')
	echo "   $path, $mode: $sent direct sends, $received direct receives"
	[ "$path" = copy ] || [ "$mode" = user ] || [ "$sent" -gt 10 ] || fail "no direct sends"
	[ "$path" = copy ] || [ "$mode" != ktls-both ] || [ "$received" -gt 10 ] || fail "no direct receives"
	same_bytes "$device" "$dir/disk"
	stop_gkproxy
}

nbdkit_tls file "$dir/disk"
check ktls-1.3 "$full" TLSv1.3 "$best" "$(with_certs 'min_version = "1.3";')"
check ktls-1.2 "$full" TLSv1.2 "$best" "$(with_certs 'ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";')"
check chacha "$full" TLSv1.3 "$best" "$(with_certs 'ciphers = "TLS_CHACHA20_POLY1305_SHA256";')"
check ktls-send ktls-send TLSv1.3 copy "$(with_certs 'ktls = "send";')"
check user-1.3 user TLSv1.3 copy "$(with_certs 'ktls = "off";')"
check user-1.2 user TLSv1.2 copy "$(with_certs 'ktls = "off"; ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384";')"
if [ "$best" != copy ]; then
	check user-"$best" user TLSv1.3 "$best" "$(with_certs 'ktls = "off";')" "data_path=\"$best\""
fi
stop_server

new_psk
nbdkit_psk file "$dir/disk"
check psk-ktls "$full" TLSv1.3 "$best" "$(with_psk)"
stop_server

step "a Unix socket"
uri="nbds+unix:///?socket=$dir/nbd.sock"
nbdkit_at -U "$dir/nbd.sock" --tls=require --tls-certificates="$dir/tls" -- file "$dir/disk"
check unix user TLSv1.3 copy "$(with_certs 'hostname = "localhost";')"
