#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: kernel/selftest/vm.sh [-k KERNEL] [-t SECONDS] [PROGRAM...]
# Builds the self-tests and runs them (default: all) in a virtual machine with KERNEL: patched
# (default), patched-debug, or a bzImage, as tests/vm/run.sh has it. Variables GK_* reach the tests.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kernel=patched
seconds=
while getopts k:t: option; do
	case $option in
	k) kernel=$OPTARG ;;
	t) seconds=$OPTARG ;;
	*)
		sed -n '3,5s/^# //p' "$0" >&2
		exit 2
		;;
	esac
done
shift $((OPTIND - 1))

# KASAN and lockdep under software emulation take several times as long.
if [[ $kernel == patched-debug ]]; then
	export GK_TIME_SCALE=${GK_TIME_SCALE:-6}
	seconds=${seconds:-14400}
fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
make -s -C "$here" O="$build/selftest" -j"$(nproc)" >&2
rm -f "$build"/selftest/*.o
strip "$build"/selftest/*
cp "$here/run.sh" "$here/programs" "$build/selftest/"
GK_BUILD=${GK_BUILD:-none} "$here/../../tests/vm/run.sh" -k "$kernel" -t "${seconds:-3600}" \
	-f "$build/selftest:/gk/selftest" "/gk/selftest/run.sh $*"
