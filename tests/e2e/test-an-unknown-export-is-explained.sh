#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 16M "$dir/disk"
nbd_server vol0 "$dir/disk"
uri=nbd://127.0.0.1:10810/nosuch
one_device
gkproxy_refuses nosuch

step "probe lists what the server has"
gkproxy probe nbd://127.0.0.1:10810/ >"$dir/probe" 2>&1 || true
grep -q vol0 "$dir/probe" || fail "probe does not name vol0: $(cat "$dir/probe")"
