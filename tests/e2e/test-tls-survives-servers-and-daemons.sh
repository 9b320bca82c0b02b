#!/bin/bash
# SPDX-License-Identifier: MIT
# kill -9 of the server, with renewed certificates and then with wrong ones, and of gkproxy, under verified
# writes: by the kernel's TLS and by our own.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"
. "$(dirname "$0")/../lib/tls.sh"

truncate -s 16M "$dir/disk"
serve() {
	nbdkit_tls -t 1 file "$dir/disk"
}
at_work() {
	[ "$(awk '{ print $1 + $2 }' /sys/block/ublkb0/inflight)" -gt 4 ] || gone "$fio_pid"
}

# survive MODE SETTING...
survive() {
	local mode=$1
	shift

	serve
	start_gkproxy 'unflushed="ignore"' 'zero_copy_threshold="16K"' connections=2 "$@"
	tls_is "$mode"
	(trap - EXIT; fio_verify "$mode" --size=16m --iodepth=32) &
	fio_pid=$!
	step "$mode: the server dies, and comes back with a renewed certificate"
	wait_for 60 "fio is at work" at_work
	stop_server KILL
	new_cert ca server
	server_files ca server "$dir/tls"
	serve
	wait_for 60 "all connections are back" is_up
	tls_is "$mode"
	step "$mode: it comes back without TLS, which is not good enough"
	wait_for 60 "fio is at work" at_work
	stop_server KILL
	nbdkit_tcp file "$dir/disk"
	wait_for 60 "it is refused" grep -q 'the server has no TLS' "$log"
	! is_up || fail "connected in the clear"
	stop_server KILL
	serve
	wait_for 60 "all connections are back" is_up
	step "$mode: gkproxy dies"
	wait_for 60 "fio is at work" at_work
	! gone "$fio_pid" || fail "fio ended too early: this test has shown nothing"
	happened reconnects "$(counter reconnects)"
	happened replays "$(counter replays)"
	kill -KILL "$gkproxy_pid"
	wait "$gkproxy_pid" 2>/dev/null || true
	start_conf
	logged 'ublkb0 is taken over'
	fenced
	tls_is "$mode"
	wait "$fio_pid" || fail "fio saw an error"
	same "$(counter errors)" 0 errors
	same_bytes "$device" "$dir/disk"
	stop_gkproxy
	stop_server
}

survive "$full" "$(with_certs)"
survive user "$(with_certs 'ktls = "off";')"
