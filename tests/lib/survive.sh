# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What tests of servers that die, freeze and change share; sourced after functions.sh.

# counter EXPRESSION: of vol0's counters, as in "reads + .writes".
counter() {
	status ".devices[0].counters | .$1"
}

# more_than NUMBER EXPRESSION
more_than() {
	[ "$(counter "$2")" -gt "$1" ]
}

state_is() {
	[ "$(status '.devices[0].state')" = "$1" ]
}

is_up() {
	state_is up
}

# happened WHAT NUMBER: says so; the test has shown nothing if it did not.
happened() {
	echo "   $1: $2"
	[ "$2" -gt 0 ] || fail "no $1: this test has shown nothing"
}

# bring_up SERVER...: starts the server and waits until all connections are back.
bring_up() {
	"$@"
	wait_for 30 "all connections are back" is_up
}

# flush_device: what fsync of the block device says.
flush_device() {
	dd if=/dev/null of="$device" conv=fsync,notrunc status=none 2>>"$dir/flush"
}

# kill_at_work PID: kill -9 of a server while it owes answers. A stopped one gives none, so what the device is
# asked for stays in flight.
kill_at_work() {
	kill -STOP "$1"
	wait_for 60 "requests are in flight" in_flight
	kill -KILL "$1"
	wait_for 30 "the server ends" gone "$1"
}

in_flight() {
	[ "$(awk '{ print $1 + $2 }' /sys/block/ublkb0/inflight)" -gt 0 ]
}

# keep_working COMMAND...: in the background, again and again until enough is said; sets work_pid.
keep_working() {
	rm -f "$dir/enough"
	while [ ! -e "$dir/enough" ]; do
		"$@" || exit 1
	done &
	work_pid=$!
}

# enough: no round of the work failed.
enough() {
	touch "$dir/enough"
	wait "$work_pid" || fail "the work failed"
}
