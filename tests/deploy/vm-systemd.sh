#!/bin/bash
# SPDX-License-Identifier: MIT
# vm-systemd.sh SUITE: a Debian of that release with systemd, in a virtual machine. The package is installed, a
# disk attached and mounted by fstab (first boot), found mounted after a boot and the package removed (second
# boot): guest-systemd.sh says what is looked at.
set -euo pipefail
shopt -s inherit_errexit

suite=$1
top=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# shellcheck source=tests/deploy/debian.sh
. "$top/tests/deploy/debian.sh"

deb=$(package "$suite" "$tmp/package")
# Neither the test nor the guest has a mirror: what the package needs is there before.
mapfile -t needs < <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -E 's/^ *([^ |]+).*/\1/')
archive=$(system "$suite" systemd-sysv udev kmod nbdkit e2fsprogs "${needs[@]}")
root=$tmp/root
mkdir "$root"
tar -C "$root" -xf "$archive"

cp "$deb" "$root/root/gkproxy.deb"
truncate -s 128M "$root/srv/vol0.img"
truncate -s 16M "$root/srv/vol1.img"
echo 'start=2048, type=83' | sfdisk -q --no-reread --no-tell-kernel "$root/srv/vol1.img"
mkdir -p "$root/var/log/journal" "$root/data"
: >"$root/etc/fstab"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
ln -sf /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"
cat >"$root/etc/systemd/system/nbdkit@.service" <<-'END'
	[Unit]
	Before=gkproxy.service
	[Service]
	Type=forking
	PIDFile=/run/nbdkit-%i.pid
	ExecStart=/usr/bin/nbdkit -U /run/nbdkit-%i.sock -P /run/nbdkit-%i.pid file /srv/%i.img
	[Install]
	WantedBy=multi-user.target
END
cat >"$root/etc/systemd/system/gkproxy-test.service" <<-'END'
	[Unit]
	After=remote-fs.target nbdkit@vol0.service nbdkit@vol1.service
	[Service]
	ExecStart=/bin/bash -c '. /run/gk/.command; exec /bin/bash /run/gk/tests/deploy/guest-systemd.sh >/dev/ttyS1 2>&1'
	[Install]
	WantedBy=multi-user.target
END
systemctl -q --root="$root" enable nbdkit@vol0 nbdkit@vol1 gkproxy-test

mke2fs -q -t ext4 -d "$root" "$tmp/system.img" 1500M >"$tmp/mke2fs.log" 2>&1
rm -rf "$root"
for boot in 1 2; do
	say "boot $boot of Debian $suite"
	# One processor, as in vm-container.sh.
	GK_BUILD=none "$top/tests/vm/run.sh" -k stock -c 1 -t $((300 * ${GK_TIME_SCALE:-1})) -d "$tmp/system.img" \
		-f "$top/tests/deploy/pid1.sh:/gk/.pid1" -f "$top/tests/deploy" : || fail "boot $boot"
done
