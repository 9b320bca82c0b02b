#!/bin/bash
# SPDX-License-Identifier: MIT
# Installs what building gkproxy, its tests and the demo need, on Debian 12 and 13; "install-deps.sh build"
# only what building gkproxy needs, "install-deps.sh bench" also what the benchmarks count with. Quick when
# all is there. As root, or with sudo.
set -euo pipefail

packages=(
	# to build gkproxy and its package
	gcc libc6-dev cmake make pkg-config dpkg-dev file
	liburing-dev libconfig-dev libjansson-dev libmicrohttpd-dev libssl-dev
)
[ "${1:-}" = build ] || packages+=(
	# to build the tests
	clang libclang-rt-dev llvm git libcmocka-dev valgrind
	# servers and tools of the tests and of the demo
	nbdkit nbd-client nbd-server qemu-utils libnbd-bin fio jq openssl
	e2fsprogs xfsprogs fdisk mount util-linux iproute2 kmod tcpdump "busybox|busybox-static" procps
	# checks of what stands in deploy/
	systemd udev mandoc debootstrap buildah crun
	# the virtual machine
	qemu-system-x86 seabios cpio xz-utils zstd debian-archive-keyring
)
[ "${1:-}" != bench ] || packages+=(strace linux-perf)

missing=()
for package in "${packages[@]}"; do
	# "A|B": either will do, A is installed.
	dpkg-query -W -f '${db:Status-Status}\n' ${package//|/ } 2>/dev/null | grep -qx installed ||
		missing+=("${package%%|*}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "install-deps: installing ${missing[*]}" >&2
as_root=()
if [ "$(id -u)" != 0 ]; then
	type -P sudo >/dev/null || {
		echo "install-deps: needs root or sudo" >&2
		exit 1
	}
	as_root=(sudo)
fi
apt_get() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 \
		-o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null >&2
}
apt_get update
apt_get install -y --no-install-recommends "${missing[@]}"
