#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 64M
one_device
# A kernel that has ublk built in lacks it only to look at.
if [ -d /sys/module/ublk_drv/initstate ] || grep -q '^ublk_drv ' /proc/modules; then
	rmmod ublk_drv
else
	mv /dev/ublk-control /dev/hidden-ublk-control
fi
gkproxy_refuses 'ublk.*modprobe ublk_drv'
if [ -e /dev/hidden-ublk-control ]; then
	mv /dev/hidden-ublk-control /dev/ublk-control
else
	modprobe ublk_drv
fi
start_conf
