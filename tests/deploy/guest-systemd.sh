#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs as a unit in the guest of vm-systemd.sh, once in each boot; see there.
# shellcheck source=tests/deploy/guest.sh
. /run/gk/tests/deploy/guest.sh
# shellcheck source=tests/deploy/guest-udev.sh
. /run/gk/tests/deploy/guest-udev.sh

main_pid() {
	systemctl show -P MainPID gkproxy
}

restarted() {
	[ "$(main_pid)" != "$1" ] && systemctl -q is-active gkproxy
}

first_boot() {
	local pid round disk seen

	echo "-- the package is installed, and starts nothing"
	dpkg -i /root/gkproxy.deb
	! systemctl -q is-enabled gkproxy || fail "the service is enabled without a configuration"
	! systemctl -q is-active gkproxy || fail "the service runs"
	[ -s /etc/gkproxy/proxy.conf ] || fail "there is no configuration to edit"
	dpkg-query -W -f '${Conffiles}' gkproxy | grep -q /etc/gkproxy/proxy.conf || fail "it is no conffile"
	! type -P udevadm >/dev/null || ! udevadm verify --help >/dev/null 2>&1 ||
		udevadm verify --no-summary /usr/lib/udev/rules.d/60-gkproxy.rules

	echo "-- the README's quick start"
	systemctl stop backup
	docs=/run/gk follow README try
	mountpoint -q /mnt || fail "/mnt is not mounted"
	umount /mnt
	systemctl stop gkproxy
	kill "$(pidof nbdkit)"
	[ "$(disks)" = 0 ] || fail "disks are left"
	systemctl start backup

	echo "-- a server with TLS, and a disk on it, as deploy/doc says"
	mkdir /root/certificates
	cd /root/certificates
	follow tls certificates
	follow tls server
	follow tls client
	systemctl start store
	block tls "conf vol0" >/etc/gkproxy/proxy.conf
	follow attach-at-boot enable
	[ "$(disks)" = 1 ] || fail "there is not one disk, but $(disks)"
	wait_for 5 "the journal has the line" eval 'journal -u gkproxy; grep -q "ready: all devices are up" /run/journal.txt'
	! grep -iE 'PR_SET_IO_FLUSHER|udev will not|denied|not permitted|warning' /run/journal.txt ||
		fail "the unit takes something away that is needed"
	encrypted gkproxy status vol0 --json

	echo "-- udev knows its name, and does not watch it"
	[ -b /dev/gkproxy/vol0 ] || fail "links: $(ls -l /dev/gkproxy)"
	watched vda || fail "udev watches no disk, or notes it elsewhere: $(ls /run/udev/watch)"
	! watched "$(basename "$(readlink -f /dev/gkproxy/vol0)")" || fail "udev watches"

	echo "-- a file system, mounted by fstab"
	follow attach-at-boot mount
	mountpoint -q /data || fail "/data is not mounted"
	head -c 8M /dev/urandom >/data/file
	sha256sum /data/file >/root/sum

	echo "-- a second daemon beside it, with a partitioned disk; it ends, starts again, and the first one does not care"
	block attach-at-boot "conf backup" >/etc/gkproxy/backup.conf
	follow attach-at-boot backup
	pid=$(main_pid)
	for round in 1 2; do
		[ "$(disks)" = 2 ] || fail "the second daemon came up without its device ($round)"
		wait_for 30 "udev makes links" test -b /dev/gkproxy/backup0-part1
		[ -b /dev/gkproxy/backup0 ] || fail "links: $(ls -l /dev/gkproxy)"
		dd if=/dev/gkproxy/backup0 of=/dev/null bs=1M iflag=direct status=none
		[ "$round" = 1 ] || break
		systemctl stop gkproxy@backup
		udevadm settle
		[ "$(disks)" = 1 ] && [ ! -e /dev/gkproxy/backup0 ] && [ ! -e /dev/gkproxy/backup0-part1 ] ||
			fail "it left behind: $(ls -l /dev/gkproxy /dev/ublk*)"
		systemctl start gkproxy@backup
	done
	[ "$(main_pid)" = "$pid" ] || fail "the first daemon was restarted"

	udev_checks

	echo "-- a daemon that hangs is restarted by the watchdog, one that was killed too; the disk is the same"
	mkdir -p /run/systemd/system/gkproxy.service.d
	printf '[Service]\nWatchdogSec=%d\nTimeoutAbortSec=5\n' $((4 * ${GK_TIME_SCALE:-1})) >/run/systemd/system/gkproxy.service.d/test.conf
	systemctl daemon-reload
	disk=$(basename "$(readlink -f /dev/gkproxy/vol0)")
	seen=$(count_events KERNEL '[a-z]+' "$disk")
	pid=$(main_pid)
	kill -KILL "$pid"
	wait_for 60 "systemd starts it again" restarted "$pid"
	head -c 4M /dev/urandom >/data/file2
	sync -f /data/file2
	pid=$(main_pid)
	kill -STOP "$pid"
	wait_for 60 "the watchdog ends it" restarted "$pid"
	head -c 4M /dev/urandom >/data/file3
	sync -f /data/file3
	journal -u gkproxy
	grep -qi 'watchdog' /run/journal.txt || fail "it was not the watchdog"
	quiet_since "$seen" "$disk"
	sha256sum /data/file2 /data/file3 >>/root/sum
	rm -r /run/systemd/system/gkproxy.service.d
	systemctl daemon-reload
	next_stage
}

second_boot() {
	echo "-- the disk is mounted, and has what was written"
	mountpoint -q /data || fail "/data is not mounted"
	sha256sum --quiet -c /root/sum
	encrypted gkproxy status vol0 --json
	[ -b /dev/gkproxy/backup0 ] || fail "the second daemon did not start with the machine"
	journal -b _SYSTEMD_UNIT=gkproxy.service + _PID=1
	before 'ready: all devices are up' 'Mounted (data.mount|/data)'

	echo "-- the last boot ended in order"
	last_end _SYSTEMD_UNIT=gkproxy.service + _PID=1
	before 'Unmounted (data.mount|/data)' '(SIGTERM|Terminated): ending'
	before '(SIGTERM|Terminated): ending' 'vol0: removed$'
	! grep -E 'removed while it is mounted|Failed unmounting|State .stop-.* timed out' /run/journal.txt ||
		fail "it did not end in order"
	! dmesg | grep -E 'ublkb[0-9].*(recovery|orphan|not cleanly|warning)' || fail "the file system was not clean"

	echo "-- reload, and the end of the package"
	systemctl reload gkproxy
	systemctl -q is-active gkproxy || fail "reload ended it"
	umount /data
	dpkg -r gkproxy
	udevadm settle
	[ -z "$(find /dev -name 'ublk[bc][0-9]*')" ] || fail "devices are left"
	[ ! -e /dev/gkproxy/vol0 ] || fail "links are left"
	[ -e /etc/gkproxy/proxy.conf ] || fail "the configuration is gone"
	[ -z "$(find /etc/systemd/system -name 'gkproxy*.service' ! -name gkproxy-test.service)" ] ||
		fail "a unit is still enabled"
	! dmesg | grep -E 'WARNING:|BUG:|Oops|Call Trace' || fail "the kernel complains"
}

if [ "$stage" = 1 ]; then first_boot; else second_boot; fi
