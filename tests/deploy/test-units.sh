#!/bin/bash
# SPDX-License-Identifier: MIT
# test-units.sh BUILD: what is installed from BUILD makes sense to systemd: the units, and that of the container, have no
# mistake that systemd-analyze finds, are hardened, and stand where they must in the order of boot.
set -euo pipefail

build=$1
top=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
units=$root/usr/local/lib/systemd/system

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# A root of its own: systemd's units, what is installed, and the programs that units start.
DESTDIR=$root cmake --install "$build" --prefix /usr/local >"$root/installed"
mkdir -p "$root/usr/lib/systemd" "$root/usr/bin" "$root/usr/sbin" "$root/etc"
cp -r /lib/systemd/system "$root/usr/lib/systemd/"
ln -s usr/bin usr/sbin usr/lib "$root/"
install -m 755 /dev/null "$root/usr/bin/sh"
mkdir -p "$root/usr/local/sbin"
# The container's unit is no part of the package, and docker.service not always of this system.
cp "$top/deploy/container/gkproxy-container.service" "$units"
install -m 755 /dev/null "$root/usr/bin/docker"
printf '[Service]\nExecStart=/usr/bin/docker\n' >"$root/usr/lib/systemd/system/docker.service"

for unit in gkproxy.service gkproxy@vol0.service gkproxy-container.service; do
	# Complaints about other units of this system are not ours.
	said=$(systemd-analyze verify --man=no --recursive-errors=no --root="$root" "$unit" 2>&1 |
		grep -E 'gkproxy' || true)
	[ -z "$said" ] || fail "systemd-analyze verify: $said"
	[ "$unit" != gkproxy-container.service ] || continue
	systemd-analyze security --offline=true --threshold=40 --root="$root" "$unit" >"$root/security" 2>&1 ||
		fail "$unit is less hardened than it was: $(tail -n1 "$root/security")"
	tail -n1 "$root/security"
done

for unit in "$units"/gkproxy.service "$units"/gkproxy@.service; do
	for line in Type=notify 'WatchdogSec=[1-9]' 'Before=.*remote-fs-pre.target' 'Wants=.*remote-fs-pre.target' \
		    'After=.*network-online.target.* network.target' RuntimeDirectoryPreserve=yes; do
		grep -q "^$line" "$unit" || fail "${unit##*/} has no $line"
	done
	! grep '@GK_\|@CMAKE_' "$unit" || fail "${unit##*/} is not complete"
done

# udevadm verify came with systemd 254 (Debian 13).
if udevadm verify --help >/dev/null 2>&1; then
	udevadm verify --no-summary "$root/usr/local/lib/udev/rules.d/60-gkproxy.rules" || fail "udevadm verify"
fi
