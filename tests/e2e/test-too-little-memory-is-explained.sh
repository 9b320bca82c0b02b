#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 16M
one_device queue_depth=4096 queues=2 connections=2 'data_path="copy"'
# 2 * 4096 * 512 KiB
gkproxy_refuses 'vol0: its buffers need 409[0-9] MiB of memory.*has [0-9]+ MiB to spare: lower queue_depth'
