#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: kernel/selftest/icount.sh [STOCK PATCHED]
# What the series costs requests that do not use it: guest instructions per request, counted by QEMU,
# on the test kernel without and with the series (built if no bzImage is given). Prints a table for
# kernel/README.md; status 1 if a NOP or a READ costs over 1 % more, or a linked NOP over 2 %.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stock=${1:-$("$here/../build.sh" --stock-test | tail -n1)}
patched=${2:-$("$here/../build.sh" --test | tail -n1)}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

make -s -C "$here" O="$build" "$build/hotpath" >&2
mkdir "$build/root"
cp "$build/hotpath" "$build/root/init"
(cd "$build/root" && find . | cpio --quiet -o -H newc) >"$build/initrd"

# One virtual CPU; its clock is the number of instructions that it has executed.
count()
{
	timeout 600 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -nic none \
		-machine q35 -accel tcg,thread=single -icount shift=0,sleep=off -cpu max -smp 1 -m 512 \
		-kernel "$1" -initrd "$build/initrd" -serial stdio \
		-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable" \
		</dev/null | tr -d '\r' | sed -n 's/^RESULT //p'
}

count "$stock" >"$build/stock"
count "$patched" >"$build/patched"
[[ $(wc -l <"$build/stock") -eq 5 ]] || {
	echo "icount.sh: the machine did not count to its end" >&2
	exit 1
}
echo "| request | instructions, stock | patched | difference |"
echo "|---|---|---|---|"
join "$build/stock" "$build/patched" | awk '
	{
		change = ($3 - $2) / $2 * 100
		limit = $1 ~ /linked/ ? 2 : 1
		name = $1
		sub(/^READ/, "READ 4 KiB", name)
		gsub(/,/, ", ", name)
		printf "| %s | %.1f | %.1f | %+.2f %% |\n", name, $2, $3, change
		if (change > limit)
			failed = 1
	}
	END { exit failed || NR != 5 }'
