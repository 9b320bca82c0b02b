#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: kernel/selftest/each.sh [BZIMAGE...]
# Each patch boots alone: starts a virtual machine with the test kernel after the first patch, after two,
# ... (built, or the images given) and runs those self-tests in it that the kernel has enough for, and
# verified writes through ublk by gkproxy ($GK_BUILD, as tests/vm/run.sh has it). Status 1 if any fails.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
# Groups come with the second patch, members that use the group's buffer with the fourth.
programs=(
	[1]='ublk_basic'
	[2]='group_basic group_link group_cancel ublk_basic'
	[3]='group_basic group_link group_cancel ublk_basic'
	[4]='group_basic group_link group_split group_cancel ublk_basic'
)
# What a patch that has not come yet would bring is skipped, and must be counted as that.
export GK_ALLOW_SKIP=1

if [[ $# -eq 0 ]]; then
	images=$("$here/../build.sh" --each)
	mapfile -t images <<<"$images"
	set -- "${images[@]}"
fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
make -s -C "$here" O="$build/selftest" -j"$(nproc)" >&2
rm -f "$build"/selftest/*.o
strip "$build"/selftest/*
cp "$here/run.sh" "$here/programs" "$build/selftest/"

patches=0
failed=0
for image; do
	patches=$((patches + 1))
	log=$build/$patches.log
	status=0
	"$top/tests/vm/run.sh" -k "$image" -t 1800 -f "$build/selftest:/gk/selftest" "
		bash tests/e2e/test-fio-verifies-with-one-queue.sh &&
		echo '# gkproxy: verified' &&
		/gk/selftest/run.sh ${programs[patches < 4 ? patches : 4]}" >"$log" 2>&1 || status=$?
	if [[ $status -eq 0 ]] && grep -q '^# gkproxy: verified$' "$log"; then
		echo "ok $patches - with the first $patches: $(tail -n1 "$log")"
	else
		echo "not ok $patches - with the first $patches: status $status"
		tail -n 60 "$log" | sed 's/^/# /'
		failed=$((failed + 1))
	fi
done
echo "1..$patches"
[[ $failed -eq 0 ]]
