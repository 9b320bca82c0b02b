#!/bin/bash
# SPDX-License-Identifier: MIT
# A device can be detached whatever its server does, and what it was told to do fails instead of hanging.
. "$(dirname "$0")/../lib/functions.sh"

in_flight() { [ "$(awk '{ print $1 + $2 }' /sys/block/ublkb1/inflight)" -gt 0 ]; }
state_is() { [ "$(status '.devices[] | select(.name == "two").state')" = "$1" ]; }

# detaches SECONDS ARGS...: in that time.
detaches() {
	local begun=$SECONDS limit=$(($1 * ${GK_TIME_SCALE:-1}))
	shift

	gkproxy detach two "$@" || fail "detach two $*"
	echo "   detached within $((SECONDS - begun)) s"
	[ $((SECONDS - begun)) -le "$limit" ] || fail "it took more than $limit s"
	[ ! -e /dev/ublkb1 ] || fail "the device is still there"
}

# two_at_work: a second device, on a server of its own, with a read in flight that is not answered.
two_at_work() {
	gkproxy attach "$uri" --name two --id 1 --request_timeout 0 >/dev/null
	kill -STOP "$server_pid"
	dd if=/dev/ublkb1 of=/dev/null bs=4k count=1 iflag=direct status=none 2>"$dir/dd" &
	dd_pid=$!
	wait_for 30 "the read is in flight" in_flight
}

# Its server stays well all the time.
nbdkit_unix memory 64M
start_gkproxy
nbdkit_tcp -t 1 memory 64M

step "the server is frozen, nobody uses the device"
gkproxy attach "$uri" --name two --id 1 >/dev/null
kill -STOP "$server_pid"
detaches 30
kill -CONT "$server_pid"

step "the server is frozen, a read is in flight: refused, and forced"
two_at_work
! gkproxy detach two 2>"$dir/err" || fail "a device in use was detached"
grep -q "open in process $dd_pid (dd)" "$dir/err" || fail "it says $(cat "$dir/err")"
# Others do not wait with it.
(detaches 15 --force) &
detach_pid=$!
path=$(timeout $((10 * ${GK_TIME_SCALE:-1})) gkproxy attach "nbd+unix:///?socket=$dir/nbd.sock" --name other) ||
	fail "attach waits for a detach"
gkproxy detach other
wait "$detach_pid" || fail "not forced out"
! wait "$dd_pid" || fail "the read succeeded without an answer"
kill -CONT "$server_pid"

step "a mounted file system, the network is gone"
gkproxy attach "$uri" --name two --id 1 >/dev/null
mkfs.ext4 -q /dev/ublkb1
mkdir -p /mnt
mount /dev/ublkb1 /mnt
dd if=/dev/zero of=/mnt/file bs=1M count=4 status=none
ip link set lo down
(detaches 20 --force)
ip link set lo up
umount /mnt
# The id is free again once the file system has let go of it.
ids_free() { [ -z "$(find /dev -name 'ublk[bc]1')" ]; }
wait_for 30 "the device is gone" ids_free

step "in back-off: the server is gone"
stop_server KILL
nbdkit_tcp -t 1 memory 64M
gkproxy attach "$uri" --name two --id 1 >/dev/null
stop_server KILL
wait_for 30 "the device waits for its server" state_is reconnecting
detaches 15

step "while it is being attached to a server that takes the connection and says nothing"
nbdkit_tcp -t 1 memory 64M
kill -STOP "$server_pid"
gkproxy attach "$uri" --name two --id 1 --connect_timeout 0 2>"$dir/err" &
attach_pid=$!
attaching() { [ "$(status '.devices | map(.name + .state) | join(" ")')" = "vol0up twoattaching" ]; }
wait_for 30 "the device is being attached" attaching
gkproxy detach two
! wait "$attach_pid" || fail "attach succeeded"
same "$(status '.devices | length')" 1 devices
kill -CONT "$server_pid"
