#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix --filter=log memory 64M logfile="$dir/server.log"
start_gkproxy queues=1 connections=4
same "$(status '.devices[0].connections | length')" 4 connections
fio_verify four-connections --size=16m
stop_gkproxy

step "every connection carried requests"
for i in 1 2 3 4; do
	grep -qE "connection=$i Write" "$dir/server.log" || fail "connection $i carried no write"
done
