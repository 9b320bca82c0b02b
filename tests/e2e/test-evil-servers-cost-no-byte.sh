#!/bin/bash
# SPDX-License-Identifier: MIT
# Servers that drop, stall, cut, lie and repeat, behind devices on each data path that this kernel has: tests/e2e/
# evil_device.c. GK_EVIL_SEEDS (8) seeds on each from GK_EVIL_FIRST (1) on, some devices at a time.
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 1M
start_gkproxy data_path='"copy"'
for path in copy registered group; do
	[ "$(gkproxy probe --json | jq ".data_paths.$path.available")" = true ] || continue
	step "$path"
	evil_device "$path" "${GK_EVIL_FIRST:-1}" "${GK_EVIL_SEEDS:-8}" 8 ||
		fail "evil servers on data path $path"
done
same "$(status '.devices | map(.name) | join(" ")')" vol0 "devices that are left"
