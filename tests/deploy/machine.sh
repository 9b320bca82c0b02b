# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A Debian with systemd as a virtual machine: sourced after debian.sh, whose "system" makes what it is unpacked from.

# machine ARCHIVE: unpacks it into $root and makes it a host of its own, with two servers' names.
machine() {
	root=$tmp/root
	mkdir "$root"
	tar -C "$root" -xf "$1"
	printf '127.0.0.1 localhost store.example\n127.0.0.2 backup.example\n' >"$root/etc/hosts"
	mkdir -p "$root/var/log/journal"
	: >"$root/etc/fstab"
	tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
	ln -sf /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"
}

# server NAME COMMAND BEFORE...: an nbdkit in the background as a unit of the guest, there before these in each boot.
server() {
	local name=$1 command=$2
	shift 2

	cat >"$root/etc/systemd/system/$name.service" <<-END
		[Unit]
		Before=$*
		[Service]
		Type=forking
		ExecStart=/usr/bin/$command
		[Install]
		WantedBy=multi-user.target
	END
	systemctl -q --root="$root" enable "$name"
}

# boot_twice SCRIPT AFTER...: SCRIPT of this folder runs in both boots, after these units. The second one needs the
# /root/stage of the first.
boot_twice() {
	local script=$1 boot
	shift

	cat >"$root/etc/systemd/system/gkproxy-test.service" <<-END
		[Unit]
		After=$*
		[Service]
		ExecStart=/bin/bash -c '. /run/gk/.command; exec /bin/bash /run/gk/tests/deploy/$script >/dev/ttyS1 2>&1'
		[Install]
		WantedBy=multi-user.target
	END
	systemctl -q --root="$root" enable gkproxy-test
	mke2fs -q -t ext4 -d "$root" "$tmp/system.img" "${image_size:-1500M}" >"$tmp/mke2fs.log" 2>&1
	rm -rf "$root"
	for boot in 1 2; do
		say "boot $boot"
		# One processor, as in vm-container.sh.
		GK_BUILD=none "$top/tests/vm/run.sh" -k stock -c 1 -t $((${boot_seconds:-300} * ${GK_TIME_SCALE:-1})) \
			-d "$tmp/system.img" -f "$top/tests/deploy/pid1.sh:/gk/.pid1" -f "$top/tests/deploy" -f "$top/README.md" : ||
			fail "boot $boot"
	done
}
