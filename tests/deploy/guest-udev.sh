# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What udev does with gkproxy's disks: names, events, and no probing each time that somebody closes one. Sourced by
# guest-systemd.sh, for its first boot, with both daemons up.

events=/run/events.txt
monitor=

# count_events SOURCE ACTION NAME: how many of these (regular expressions) there were; NAME as in /sys/class/block.
count_events() {
	grep -cE "^$1 *\[[0-9.]+\] +$2 +/devices/(.*/)?$3 \(block\)" "$events" || true
}

# more_events COUNT SOURCE ACTION NAME: than COUNT.
more_events() {
	local than=$1
	shift

	[ "$(count_events "$@")" -gt "$than" ]
}

# watched DISK: by udev, whether somebody closes it who wrote to it. The note is a link to no file.
watched() {
	[ -L "/run/udev/watch/b$(cat "/sys/class/block/$1/dev")" ]
}

# mark: when it returns, udev has dealt with all that was closed before. It hears of closings in their order, and the
# last one is that of a disk which it was told to watch. Twice, because what it does about one may be a process.
mark() {
	local n

	for _ in 1 2; do
		n=$(count_events UDEV change "$marker")
		: <>"/dev/$marker"
		wait_for 60 "udev hears of a disk that it watches" more_events "$n" UDEV change "$marker"
	done
}

# reads NAME: how many reads the device got so far.
reads() {
	gkproxy status "$1" --json | tr -d ' \n' | grep -oE '"reads":[0-9]+' | cut -d: -f2
}

reconnects() {
	gkproxy status "$1" --json | tr -d ' \n' | grep -oE '"reconnects":[0-9]+' | cut -d: -f2
}

# back NAME COUNT: it is up again, after having been lost COUNT times.
back() {
	[ "$(reconnects "$1")" -gt "$2" ] && gkproxy status "$1" --json | tr -d ' \n' | grep -q '"state":"up"'
}

# close_often NAME: as programs do that write to a disk and its partition. The last one really writes.
close_often() {
	for _ in {1..20}; do
		: <>"/dev/gkproxy/$1"
		: <>"/dev/gkproxy/$1-part1"
	done
	dd if=/dev/zero of="/dev/gkproxy/$1" bs=4k seek=512 count=1 oflag=direct conv=notrunc status=none
}

# rule NAME: has udev watch the disk of that name, as it does others.
rule() {
	mkdir -p /run/udev/rules.d
	echo "SUBSYSTEM==\"block\", ENV{DEVTYPE}==\"disk\", ENV{GKPROXY_NAME}==\"$1\", OPTIONS+=\"watch\"" \
		>"/run/udev/rules.d/99-$1.rules"
	udevadm control --reload
}

# refused WORDS COMMAND...: it fails, and says so.
refused() {
	local words=$1
	shift

	! "$@" >/run/answer.txt 2>&1 || fail "it was done: $*"
	grep -qE "$words" /run/answer.txt || fail "another message than '$words': $(cat /run/answer.txt)"
	echo "   $(cat /run/answer.txt)"
}

udev_checks() {
	local odd=_0.-Ab_z-9.another_name-that.is_64-characters.long_with-all.them disk n m target

	echo "-- udev: one event for a disk, and one for its partition"
	udevadm monitor --kernel --udev --subsystem-match=block >"$events" &
	monitor=$!
	wait_for 10 "the monitor listens" grep -q '^KERNEL - ' "$events"
	truncate -s 16M /srv/backup/mark
	cp /srv/backup/backup0 /srv/backup/odd
	rule mark
	gkproxy attach nbd://backup.example/mark
	udevadm wait --timeout=60 /dev/gkproxy/mark
	marker=$(basename "$(readlink -f /dev/gkproxy/mark)")
	wait_for 30 "udev watches what it is told to" watched "$marker"
	gkproxy attach nbd://backup.example/odd --name "$odd"
	udevadm wait --timeout=60 "/dev/gkproxy/$odd-part1"
	mark
	disk=$(basename "$(readlink -f "/dev/gkproxy/$odd")")
	[ "$(readlink -f "/dev/gkproxy/$odd-part1")" = "/dev/${disk}p1" ] || fail "links: $(ls -l /dev/gkproxy)"
	n="$(count_events KERNEL add "$disk") $(count_events KERNEL add "$disk/${disk}p1")"
	m=$(count_events KERNEL change "$disk(/.*)?")
	echo "   add: $n, change: $m"
	[ "$n" = "1 1" ] && [ "$m" -le 1 ] || fail "events: $(cat "$events")"

	echo "-- udev: nobody probes a disk because it was closed"
	n=$(count_events KERNEL '[a-z]+' "$disk(/.*)?") m=$(reads "$odd")
	close_often "$odd"
	mark
	[ "$(count_events KERNEL '[a-z]+' "$disk(/.*)?")" = "$n" ] || fail "events: $(cat "$events")"
	[ "$(reads "$odd")" = "$m" ] || fail "$m reads became $(reads "$odd")"

	echo "-- udev: nor because its server went and came back"
	n=$(count_events KERNEL '[a-z]+' "$disk(/.*)?") m=$(reconnects "$odd")
	systemctl restart backup
	wait_for 60 "it is connected again" back "$odd" "$m"
	wait_for 60 "the other one, too" back mark 0
	mark
	[ "$(count_events KERNEL '[a-z]+' "$disk(/.*)?")" = "$n" ] || fail "events: $(cat "$events")"

	echo "-- udev: it would, if it watched"
	rule "$odd"
	n=$(count_events UDEV change "$disk")
	udevadm trigger "/dev/$disk"
	wait_for 30 "udev looks at it" more_events "$n" UDEV change "$disk"
	watched "$disk" || fail "udev does not watch"
	n=$(count_events KERNEL change "$disk") m=$(reads "$odd")
	close_often "$odd"
	wait_for 60 "udev hears of it" more_events "$n" KERNEL change "$disk"
	mark
	echo "   $(($(count_events KERNEL change "$disk") - n)) times, $(($(reads "$odd") - m)) reads"
	[ "$(reads "$odd")" -gt "$m" ] || fail "there were no reads"

	echo "-- a name is one disk on a host"
	target=$(readlink -f /dev/gkproxy/backup0)
	refused 'already|exists' gkproxy attach nbd://backup.example/mark --name vol0
	refused 'already|exists' gkproxy attach nbd://backup.example/odd --name backup0
	refused 'expected a name' gkproxy attach nbd://backup.example/odd --name odd-part1
	udevadm settle
	[ "$(readlink -f /dev/gkproxy/backup0)" = "$target" ] && [ "$(disks)" = 4 ] || fail "links: $(ls -l /dev/gkproxy)"

	echo "-- links go with their disk"
	rm "/run/udev/rules.d/99-$odd.rules" /run/udev/rules.d/99-mark.rules
	udevadm control --reload
	n=$(count_events UDEV remove "$disk(/.*)?")
	gkproxy detach "$odd"
	gkproxy detach mark
	wait_for 30 "udev removes them" eval "[ \"\$(count_events UDEV remove '$disk(/.*)?')\" = $((n + 2)) ]"
	udevadm settle
	[ "$(ls /dev/gkproxy)" = "$(printf '%s\n' backup0 backup0-part1 vol0)" ] || fail "links: $(ls -l /dev/gkproxy)"
	[ "$(find /run/gkproxy/udev -name 'ublkb*' | wc -l)" = 2 ] || fail "notes: $(ls -l /run/gkproxy/udev)"
}

# quiet_since COUNT DISK: there was no event of the disk beyond those.
quiet_since() {
	local n

	# What udev is not told to watch, only the kernel can announce, and it does so in order.
	n=$(count_events KERNEL change vda)
	echo change >/sys/class/block/vda/uevent
	wait_for 30 "the kernel announces what it is told to" more_events "$n" KERNEL change vda
	[ "$(count_events KERNEL '[a-z]+' "$2(/.*)?")" = "$1" ] || fail "events: $(cat "$events")"
	kill "$monitor"
}
