#!/bin/bash
# SPDX-License-Identifier: MIT
# small-memory.sh KERNEL: a guest with 256 MiB writes four times as much to a file system on a device whose server is here
# (tests/e2e/small-memory.sh), and what the server has got is what was written.
set -euo pipefail

top=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
tmp=$(mktemp -d "${TMPDIR:-/tmp}/gkproxy-small.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# Text of which no two blocks are the same.
export GK_SMALL_A="1 57000000" GK_SMALL_B="200000001 251000000"
image=$tmp/disk
truncate -s 2G "$image"
"$top/tests/vm/run.sh" -k "$1" -s -m 256 -n "$image" -t $((600 * ${GK_TIME_SCALE:-1})) bash tests/e2e/small-memory.sh

# compare FILE FIRST LAST
compare() {
	debugfs -R "cat /$1" "$image" 2>"$tmp/debugfs" | cmp - <(seq "$2" "$3") || {
		echo "file $1 is not what was written: $(cat "$tmp/debugfs")" >&2
		exit 1
	}
}

e2fsck -fn "$image"
# shellcheck disable=SC2086 # each is two words
compare a $GK_SMALL_A
# shellcheck disable=SC2086
compare b $GK_SMALL_B
echo "every byte is there"
