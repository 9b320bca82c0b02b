#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix --filter=blocksize-policy memory 64M blocksize-minimum=64K blocksize-preferred=64K
one_device
gkproxy_refuses '65536.*page size'

step "an export smaller than a block"
stop_server
nbdkit_unix memory 100
one_device
gkproxy_refuses 'not one block'
