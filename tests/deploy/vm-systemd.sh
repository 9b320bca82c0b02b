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
# shellcheck source=tests/deploy/machine.sh
. "$top/tests/deploy/machine.sh"
start_builder

deb=$(package "$suite" "$tmp/package")
# Neither the test nor the guest has a mirror: what the package needs is there before.
mapfile -t needs < <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -E 's/^ *([^ |]+).*/\1/')
archive=$(system "$suite" systemd-sysv udev kmod nbdkit e2fsprogs openssl "${needs[@]}")
machine "$archive"

cp "$deb" "$root/root/gkproxy.deb"
mkdir "$root/srv/disks" "$root/srv/backup"
truncate -s 128M "$root/srv/disks/vol0"
truncate -s 16M "$root/srv/backup/backup0"
echo 'start=2048, type=83' | sfdisk -q --no-reread --no-tell-kernel "$root/srv/backup/backup0"
server store "$(block tls 'sh serve' | sed 's/^nbdkit/& -i 127.0.0.1/')" gkproxy.service gkproxy@backup.service
server backup 'nbdkit -i 127.0.0.2 file dir=/srv/backup' gkproxy.service gkproxy@backup.service
boot_twice guest-systemd.sh remote-fs.target gkproxy@backup.service
