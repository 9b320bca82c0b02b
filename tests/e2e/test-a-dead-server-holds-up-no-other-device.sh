#!/bin/bash
# SPDX-License-Identifier: MIT
# kill -9 of gkproxy while one of two servers is down: the other one's device is taken over all the same, and its
# work goes on; what the first one was asked for waits until it is back.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

# server N: starts it; its pid is in pids[N].
server() {
	nbdkit_at -U "$dir/$1.sock" -- -t 1 file "$dir/disk$1"
	pids[$1]=$server_pid
}

pids=()
writes() { status '.devices[] | select(.name == "vol2").counters.writes'; }
more_writes_than() { [ "$(writes)" -gt "$1" ]; }
waits_for() { [ "$(awk '{ print $1 + $2 }' "/sys/block/$1/inflight")" -gt 0 ]; }

truncate -s 64M "$dir/disk1" "$dir/disk2"
server 1
server 2
cat >"$conf" <<END
devices = (
  { name = "vol1"; id = 1; remote = "nbd+unix:///?socket=$dir/1.sock"; },
  { name = "vol2"; id = 2; remote = "nbd+unix:///?socket=$dir/2.sock"; }
);
END
start_conf
device=/dev/ublkb2
keep_working fio_verify served --size=6m
wait_for 60 "fio is at work" more_writes_than 50

# both_die: the first server, with a write out that waits for it (dd_pid), and gkproxy. The next gkproxy is up.
both_die() {
	kill -KILL "${pids[1]}"
	rm "$dir/1.sock"
	dd if="$dir/data" of=/dev/ublkb1 bs=1M oflag=direct status=none 2>"$dir/dd" &
	dd_pid=$!
	wait_for 30 "a write waits for the dead server" waits_for ublkb1
	kill -KILL "$gkproxy_pid"
	wait "$gkproxy_pid" 2>/dev/null || true
	: >"$log"
	gkproxy -c "$conf" 2>>"$log" &
	gkproxy_pid=$!
	wait_for 60 "the next one serves what it can" grep -q 'ready, but 1 of 2 devices are not up' "$log"
	logged 'ublkb2 is taken over'
}

step "a server dies, and gkproxy: the other device goes on"
dd if=/dev/urandom of="$dir/data" bs=1M count=1 status=none
both_die
same "$(status '.devices[] | "\(.name) \(.state)"' | tr '\n' ' ')" 'vol1 attaching vol2 up ' "the devices"
[ -b /dev/ublkb1 ] || fail "the dead server's device is gone"
wait_for 60 "fio gets on" more_writes_than "$(($(writes) + 50))"
! gone "$dd_pid" || fail "the write for the dead server has ended"

step "its server is back"
server 1
wait_for 60 "all devices are up" grep -q 'ready: all devices are up' "$log"
logged 'ublkb1 is taken over'
wait "$dd_pid" || fail "the write that waited failed"
cmp -n 1048576 "$dir/data" "$dir/disk1" || fail "the write that waited is not there"
enough
same_bytes "$device" "$dir/disk2"

step "given up: what waits fails, and only by force"
both_die
! gkproxy detach vol1 2>"$dir/refused" || fail "a device in use was detached"
grep -q '/dev/ublkb1 is open' "$dir/refused" || fail "it says: $(cat "$dir/refused")"
! gone "$dd_pid" || fail "the write has ended"
gkproxy detach vol1 --force
! wait "$dd_pid" || fail "a write to nobody succeeded"
wait_for 30 "the device goes" test ! -b /dev/ublkb1
same "$(status '.devices[].name')" vol2 "the devices"

step "the end of gkproxy is its end too"
server 1
gkproxy reload
both_die
stop_gkproxy
! wait "$dd_pid" || fail "a write to nobody succeeded"
