#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

check() {
	start_gkproxy
	logged "$1"
	fio_verify "${1%% *}" --size=4m
	stop_gkproxy
	stop_server
}

step "IPv4"
nbdkit_at -i 127.0.0.1 -p 10811 -- memory 16M
uri=nbd://127.0.0.1:10811/
check '127\.0\.0\.1'

step "IPv6"
nbdkit_at -i ::1 -p 10811 -- memory 16M
uri='nbd://[::1]:10811/'
check '::1'

step "a name with two addresses, of which the server has one"
nbdkit_at -i 127.0.0.1 -p 10811 -- memory 16M
uri=nbd://localhost:10811/
check '127\.0\.0\.1'

step "vsock"
modprobe -q vsock_loopback || true
nbdkit_at --vsock -p 10811 -- memory 16M
uri=nbd+vsock://1:10811/
check vsock
