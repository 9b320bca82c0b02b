#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 64M "$dir/disk"
nbdkit_unix file "$dir/disk"
start_gkproxy queues=1 connections=1
same "$(status '.devices[0].queues')" 1 queues
fio_verify one-queue
same_bytes "$device" "$dir/disk"
