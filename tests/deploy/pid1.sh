#!/bin/bash
# SPDX-License-Identifier: MIT
# First program of a guest whose system is the one on /dev/vda: hands over to its init.
mount -t ext4 /dev/vda /mnt || exec busybox reboot -f
cp -r /gk /run/gk
rm -rf /mnt/usr/lib/modules
cp -r /usr/lib/modules /mnt/usr/lib/modules
umount /tmp
for dir in dev proc sys run; do
	mount --move "/$dir" "/mnt/$dir"
done
exec busybox switch_root /mnt /sbin/init
