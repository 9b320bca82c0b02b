#!/bin/bash
# SPDX-License-Identifier: MIT
# A limit on the memory of a container or a unit counts like the memory of the host. (Debian's kernels have
# CONFIG_MEMCG, the small one of the series has not.)
. "$(dirname "$0")/../lib/functions.sh"

mount -t cgroup2 none /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p /sys/fs/cgroup/limited/daemon
echo 100M >/sys/fs/cgroup/limited/memory.max
echo 0 >/sys/fs/cgroup/limited/daemon/cgroup.procs

nbdkit_unix memory 16M
one_device queue_depth=256 queues=1 connections=1 'data_path="copy"'
# 256 * 512 KiB
gkproxy_refuses 'vol0: its buffers need 1[23][0-9] MiB of memory.*, and /sys/fs/cgroup/limited/memory.max has [0-9]+ MiB to spare: lower queue_depth or queues, or raise that limit'
step "with less it attaches, and works"
start_gkproxy queue_depth=32 queues=1 connections=1 'data_path="copy"'
dd if=/dev/urandom of="$device" bs=1M count=4 oflag=direct status=none
stop_gkproxy
echo 0 >/sys/fs/cgroup/cgroup.procs
