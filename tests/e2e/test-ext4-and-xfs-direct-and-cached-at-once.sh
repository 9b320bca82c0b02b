#!/bin/bash
# SPDX-License-Identifier: MIT
# Two devices of one daemon: ext4 on one, XFS on the other, direct and page-cache I/O on both at the same
# time; then both file systems are looked at on the server's side.
. "$(dirname "$0")/../lib/functions.sh"

mount_point() {
	echo "$dir/mnt-$1"
}

unmount_all() {
	umount "$(mount_point ext4)" "$(mount_point xfs)"
}

for fs in ext4 xfs; do
	truncate -s 320M "$dir/disk-$fs"
	mkdir "$(mount_point $fs)"
	nbdkit_at -U "$dir/$fs.sock" -- file "$dir/disk-$fs"
done
{
	echo 'devices = ('
	echo "{ name = \"ext4\"; id = 0; remote = \"nbd+unix:///?socket=$dir/ext4.sock\";"
	echo "  zero_copy_threshold = \"16K\"; },"
	echo "{ name = \"xfs\"; id = 1; remote = \"nbd+unix:///?socket=$dir/xfs.sock\";"
	echo "  zero_copy_threshold = \"16K\"; } );"
} >"$conf"
[ -z "${GK_DATA_PATH:-}" ] || echo "defaults = { data_path = \"$GK_DATA_PATH\"; };" >>"$conf"
start_conf
mkfs.ext4 -q /dev/ublkb0
mkfs.xfs -q /dev/ublkb1
mount /dev/ublkb0 "$(mount_point ext4)"
mount /dev/ublkb1 "$(mount_point xfs)"

step "four jobs at once"
{
	printf '[global]\nrw=randwrite\nbssplit=4k/30:16k/30:64k/20:256k/20\nsize=6m\niodepth=16\n'
	printf 'verify=crc32c\ndo_verify=1\nverify_fatal=1\nend_fsync=1\nrandrepeat=1\n'
	for fs in ext4 xfs; do
		printf '[%s-direct]\ndirectory=%s\nioengine=libaio\ndirect=1\n' "$fs" "$(mount_point $fs)"
		printf '[%s-cached]\ndirectory=%s\nioengine=psync\n' "$fs" "$(mount_point $fs)"
	done
} >"$dir/jobs"
fio --eta=never --output="$dir/fio.log" "$dir/jobs" || fail "fio: $(cat "$dir/fio.log")"
same "$(status '[.devices[].counters.errors] | add')" 0 errors
if [ "$(status '.devices[0].data_path')" != copy ]; then
	same "$(status '[.devices[].counters | .direct_sends > 0 and .direct_receives > 0] | all')" true \
		"large requests went through their own pages"
fi

step "the files are the same without what the page cache knew"
(cd "$dir" && sha256sum mnt-*/*direct* mnt-*/*cached* >"$dir/sums")
unmount_all
e2fsck -fn /dev/ublkb0
xfs_repair -n /dev/ublkb1 2>&1 | tail -n 2
stop_gkproxy
e2fsck -fn "$dir/disk-ext4"
start_conf
mount /dev/ublkb0 "$(mount_point ext4)"
mount /dev/ublkb1 "$(mount_point xfs)"
(cd "$dir" && sha256sum --quiet -c "$dir/sums")
unmount_all
