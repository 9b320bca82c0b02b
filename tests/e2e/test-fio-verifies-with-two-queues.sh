#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 64M "$dir/disk"
nbdkit_tcp file "$dir/disk"
start_gkproxy queues=2 connections=2
same "$(status '.devices[0].queues')" 2 queues
same "$(status '.devices[0].connections | map(.state) | join(" ")')" "up up" connections
# A job on each processor, so that both queues have work: half of the device each.
fio_verify two-queues --size=24m --numjobs=2 --offset_increment=32m --cpus_allowed=0,1 \
	--cpus_allowed_policy=split --group_reporting
same_bytes "$device" "$dir/disk"
