#!/bin/bash
# SPDX-License-Identifier: MIT
# vm-systemd.sh SUITE: a Debian of that release with systemd, in a virtual machine. The package is installed, a
# disk attached over TLS and mounted by fstab as deploy/doc says (first boot), found mounted after a boot and the
# package removed (second boot): guest-systemd.sh says what is looked at.
set -euo pipefail
shopt -s inherit_errexit

suite=$1
top=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
# shellcheck source=tests/deploy/debian.sh
. "$top/tests/deploy/debian.sh"
docs=$top/deploy/doc
# shellcheck source=tests/deploy/page.sh
. "$top/tests/deploy/page.sh"
start_builder

deb=$(package "$suite" "$tmp/package")
# Neither the test nor the guest has a mirror: what the package needs is there before.
mapfile -t needs < <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -E 's/^ *([^ |]+).*/\1/')
archive=$(system "$suite" systemd-sysv udev kmod nbdkit e2fsprogs openssl "${needs[@]}")
root=$tmp/root
mkdir "$root"
tar -C "$root" -xf "$archive"

cp "$deb" "$root/root/gkproxy.deb"
mkdir "$root/srv/disks" "$root/srv/backup"
truncate -s 128M "$root/srv/disks/vol0"
truncate -s 16M "$root/srv/backup/backup0"
echo 'start=2048, type=83' | sfdisk -q --no-reread --no-tell-kernel "$root/srv/backup/backup0"
printf '127.0.0.1 localhost store.example\n127.0.0.2 backup.example\n' >"$root/etc/hosts"
mkdir -p "$root/var/log/journal"
: >"$root/etc/fstab"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
ln -sf /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"
# server NAME COMMAND: an nbdkit in the background as a unit of the guest, there before gkproxy in each boot.
server() {
	cat >"$root/etc/systemd/system/$1.service" <<-END
		[Unit]
		Before=gkproxy.service gkproxy@backup.service
		[Service]
		Type=forking
		ExecStart=/usr/bin/$2
		[Install]
		WantedBy=multi-user.target
	END
}
server store "$(block tls 'sh serve' | sed 's/^nbdkit/& -i 127.0.0.1/')"
server backup 'nbdkit -i 127.0.0.2 file dir=/srv/backup'
cat >"$root/etc/systemd/system/gkproxy-test.service" <<-'END'
	[Unit]
	After=remote-fs.target gkproxy@backup.service
	[Service]
	ExecStart=/bin/bash -c '. /run/gk/.command; exec /bin/bash /run/gk/tests/deploy/guest-systemd.sh >/dev/ttyS1 2>&1'
	[Install]
	WantedBy=multi-user.target
END
systemctl -q --root="$root" enable store backup gkproxy-test

mke2fs -q -t ext4 -d "$root" "$tmp/system.img" 1500M >"$tmp/mke2fs.log" 2>&1
rm -rf "$root"
for boot in 1 2; do
	say "boot $boot of Debian $suite"
	# One processor, as in vm-container.sh.
	GK_BUILD=none "$top/tests/vm/run.sh" -k stock -c 1 -t $((300 * ${GK_TIME_SCALE:-1})) -d "$tmp/system.img" \
		-f "$top/tests/deploy/pid1.sh:/gk/.pid1" -f "$top/tests/deploy" : || fail "boot $boot"
done
