#!/bin/bash
# SPDX-License-Identifier: MIT
# Shows the main job: a remote disk attached, formatted, written, detached, attached again and read back.
# On a host with ublk it uses that host (as root); otherwise it starts a virtual machine and shows it there.
set -euo pipefail

top=$(dirname "$(dirname "$(realpath "$0")")")

say() {
	printf '\n== %s\n' "$*"
}

# show COMMAND...: says what it runs, as one would type it.
show() {
	printf '$ %s\n' "$*"
	"$@"
}

# ---- on the machine that has ublk ----

stop_all() {
	local status=$?

	trap - EXIT
	[ "$status" = 0 ] || { echo "the demo failed; gkproxy said:" >&2; tail -n 20 "$dir/gkproxy.log" >&2; }
	umount "$dir/mnt" 2>/dev/null || true
	[ -z "$proxy" ] || { kill "$proxy"; wait "$proxy"; } 2>/dev/null || true
	[ ! -s "$dir/nbdkit.pid" ] || kill "$(cat "$dir/nbdkit.pid")" 2>/dev/null || true
	rm -rf "$dir"
	exit "$status"
}

# start_proxy: attaches and waits until gkproxy says that the device is up; sets device.
start_proxy() {
	echo "\$ gkproxy -c deploy/proxy.conf &"
	: >"$dir/gkproxy.log"
	gkproxy -c "$top/deploy/proxy.conf" 2> >(tee -a "$dir/gkproxy.log") &
	proxy=$!
	until grep -q 'ready: all devices are up' "$dir/gkproxy.log"; do
		kill -0 "$proxy" 2>/dev/null || exit 1
		sleep 0.1
	done
	device=$(gkproxy status --json | jq -r '.devices[0].path')
}

stop_proxy() {
	echo "\$ kill -TERM $proxy    # gkproxy"
	kill -TERM "$proxy"
	wait "$proxy"
	proxy=
	[ ! -e "$device" ] || { echo "$device is still there" >&2; exit 1; }
	echo "$device is gone."
}

main_job() {
	dir=$(mktemp -d /tmp/gkproxy-demo.XXXXXX) proxy='' device=''
	trap stop_all EXIT
	mkdir "$dir/mnt"
	cd "$top"

	say "A server with a disk of 256 MiB (nbdkit), on 127.0.0.1 port 10809"
	truncate -s 256M "$dir/disk.img"
	show nbdkit -i 127.0.0.1 -p 10809 -P "$dir/nbdkit.pid" file "$dir/disk.img"

	say "gkproxy attaches it"
	start_proxy
	show ls -l "$device"

	say "A file system on it, and files"
	show mkfs.ext4 -q "$device"
	show mount "$device" "$dir/mnt"
	show dd if=/dev/urandom of="$dir/mnt/random" bs=1M count=32 conv=fsync status=none
	show cp -r "$top/deploy" "$dir/mnt/"
	(cd "$dir/mnt" && find . -type f -exec sha256sum {} + >"$dir/sums")
	show df -h "$dir/mnt"
	show gkproxy status
	show umount "$dir/mnt"

	say "Detach, attach again: everything is still there"
	stop_proxy
	start_proxy
	show mount "$device" "$dir/mnt"
	(cd "$dir/mnt" && show sha256sum -c "$dir/sums")
	show umount "$dir/mnt"
	show e2fsck -fn "$device"
	stop_proxy

	say "Done: the bytes of that disk were on the server all the time"
}

# ---- where the demo runs ----

host_has_ublk() {
	[ -e /dev/ublk-control ] || { [ "$(id -u)" = 0 ] && modprobe -q ublk_drv && [ -e /dev/ublk-control ]; }
}

if [ "${1:-}" = --here ]; then
	main_job
	exit
fi

say "Installing what is needed, building gkproxy"
"$top/deploy/install-deps.sh"
build=${GK_BUILD:-$top/build}
{ cmake -S "$top" -B "$build" && cmake --build "$build" --target gkproxy -j "$(nproc)"; } >/dev/null
echo "$build/gkproxy: $("$build/gkproxy" --version)"

if host_has_ublk; then
	[ "$(id -u)" = 0 ] || {
		echo "This host has ublk. Attaching a disk needs root: sudo deploy/demo.sh" >&2
		exit 1
	}
	say "This host has ublk: the demo runs right here"
	PATH=$build:$PATH main_job
else
	say "This host's kernel ($(uname -r)) has no ublk: the demo runs in a virtual machine"
	echo "It has Debian's 6.12 kernel and is gone when the demo ends; it may take a minute."
	GK_BUILD=$build "$top/tests/vm/run.sh" -k stock -t 300 deploy/demo.sh --here
fi
