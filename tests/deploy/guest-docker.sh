#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs as a unit in the guest of vm-docker.sh, once in each boot; see there.
# shellcheck source=tests/deploy/guest.sh
. /run/gk/tests/deploy/guest.sh

compose() {
	docker compose -f /etc/gkproxy/compose.yml "$@"
}

first_boot() {
	echo "-- a server with TLS, the image, and a host, as deploy/doc says"
	mkdir /root/certificates
	cd /root/certificates
	follow tls certificates
	follow tls server
	follow tls client
	systemctl start store
	docker load -q -i /root/gkproxy.tar
	rm /root/gkproxy.tar
	cd /run/gk
	follow container host
	follow container install
	block tls "conf vol0" >/etc/gkproxy/proxy.conf

	echo "-- docker compose attaches the disk"
	follow container start
	[ "$(disks)" = 1 ] || fail "disks: $(disks)"
	encrypted compose exec -T gkproxy gkproxy status vol0 --json
	compose logs --no-log-prefix gkproxy >/run/log.txt
	cat /run/log.txt
	grep -q 'ready: all devices are up' /run/log.txt || fail "it is not ready"
	! grep -iE 'denied|not permitted|warning' /run/log.txt || fail "something is missing in the container"

	echo "-- a file system, mounted by fstab"
	follow attach-at-boot mount
	mountpoint -q /data || fail "/data is not mounted"
	head -c 8M /dev/urandom >/data/file
	sha256sum /data/file >/root/sum

	echo "-- it ends with the disk detached, and starts again"
	umount /data
	systemctl stop gkproxy-container
	udevadm settle
	[ "$(disks)" = 0 ] && [ ! -e /dev/gkproxy/vol0 ] || fail "left: $(ls -l /dev/gkproxy /dev/ublk*)"
	[ -z "$(docker ps -aq)" ] || fail "containers are left: $(docker ps -a)"
	follow container start
	mount /data
	sha256sum --quiet -c /root/sum
	head -c 4M /dev/urandom >/data/file2
	sha256sum /data/file2 >>/root/sum
	next_stage
}

second_boot() {
	echo "-- the disk is mounted, and has what was written"
	mountpoint -q /data || fail "/data is not mounted"
	sha256sum --quiet -c /root/sum
	encrypted compose exec -T gkproxy gkproxy status vol0 --json

	echo "-- the last boot ended in order"
	last_end _PID=1
	before 'Unmounted (data.mount|/data)' 'Stopped gkproxy-container.service'
	! grep -E 'Failed unmounting|State .stop-.* timed out' /run/journal.txt || fail "it did not end in order"
	! dmesg | grep -E 'ublkb[0-9].*(recovery|orphan|not cleanly|warning)' || fail "the file system was not clean"
	umount /data
	systemctl stop gkproxy-container
	[ "$(disks)" = 0 ] || fail "disks are left"
	! dmesg | grep -E 'WARNING:|BUG:|Oops|Call Trace' || fail "the kernel complains"
}

if [ "$stage" = 1 ]; then first_boot; else second_boot; fi
