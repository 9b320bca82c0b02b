#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix --filter=log --filter=multi-conn memory 32M multi-conn-mode=disable \
	logfile="$dir/server.log"
start_gkproxy queues=2 connections=4
same "$(status '.devices[0].connections | length')" 1 connections
same "$(status '.devices[0].queues')" 1 queues
logged 'CAN_MULTI_CONN'
fio_verify one-connection --size=8m
stop_gkproxy
! grep -E 'connection=[0-9]+ (Read|Write)' "$dir/server.log" | grep -vE 'connection=1 ' ||
	fail "a second connection carried requests"
