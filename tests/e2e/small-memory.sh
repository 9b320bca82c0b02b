#!/bin/bash
# SPDX-License-Identifier: MIT
# A machine with little memory writes four times as much through the page cache to an ext4 on a device, with next to all
# of its memory allowed to be dirty, so that there are no free pages but those which writes to the device make. Runs in a
# guest of its own, whose server is outside: tests/vm/small-memory.sh, which also compares every byte.
. "$(dirname "$0")/../lib/functions.sh"

# counted NAME...: the sum of the kernel's counters whose names begin so.
counted() {
	local sum=0 name value prefix

	while read -r name value; do
		for prefix; do
			[[ $name != "$prefix"* ]] || sum=$((sum + value))
		done
	done </proc/vmstat
	echo "$sum"
}

# A network driver that finds no page at once drops a packet, of which the kernel speaks at length.
kernel_log() {
	dmesg | sed '/page allocation failure: order:0, mode:.*GFP_ATOMIC/,/ pages reserved$/d'
}

kib() { awk -v field="$1:" '$1 == field { print $2 }' "$2"; }

uri=nbd://10.0.2.100/
modprobe -q virtio_net || true
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
total=$(kib MemTotal /proc/meminfo)
((total <= 256 * 1024)) || fail "a machine with $total KiB is none of the small ones"

start_gkproxy queue_depth=16 queues=1 connections=2
mkfs.ext4 -q "$device"
mkdir -p /mnt
mount "$device" /mnt
echo 90 >/proc/sys/vm/dirty_ratio
echo 80 >/proc/sys/vm/dirty_background_ratio
echo "   $total KiB of memory, $(kib MemAvailable /proc/meminfo) of them available"
written=$(counted nr_written) stalls=$(counted allocstall) scanned=$(counted pgscan_kswapd pgscan_direct)
begun=$SECONDS
# shellcheck disable=SC2086 # each is two words
seq $GK_SMALL_A >/mnt/a &
writer=$!
# shellcheck disable=SC2086
seq $GK_SMALL_B >/mnt/b
wait "$writer"
umount /mnt
written=$((($(counted nr_written) - written) * 4)) stalls=$(($(counted allocstall) - stalls))
scanned=$((($(counted pgscan_kswapd pgscan_direct) - scanned) * 4))
echo "   $written KiB written in $((SECONDS - begun)) s, $scanned KiB looked at to be reclaimed, $stalls allocations had to reclaim"
((written >= 4 * total)) || fail "that is less than four times the memory"
if grep -q '^allocstall' /proc/vmstat; then
	((scanned >= total)) || fail "the machine was not short of memory"
	((stalls > 0)) || fail "no allocation had to wait for memory"
else
	echo "   this kernel does not count that (CONFIG_VM_EVENT_COUNTERS)"
fi
same "$(dmesg | grep -c 'Out of memory' || true)" 0 "processes killed for want of memory"
same "$(status '.devices[0].counters.errors')" 0 errors
