# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What end-to-end tests share. Sourced by tests/e2e/test-*.sh, which run as root in a virtual machine of
# their own (tests/vm/run.sh), never on a host that somebody needs.
#
# A test passes with exit status 0 and is skipped with 77. Whatever it started ends with it, and at its end
# nothing may be left behind: no device, no process of gkproxy, no complaint of the kernel.
set -euo pipefail

test_name=$(basename "$0" .sh)
dir=$(mktemp -d "/tmp/$test_name.XXXXXX")
conf=$dir/proxy.conf
log=$dir/gkproxy.log
device=/dev/ublkb0
uri=
gkproxy_pid=
server_pids=()

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

skip() {
	echo "SKIPPED: $*" >&2
	exit 77
}

step() {
	echo "-- $*"
}

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds; fails the test when it never does. All limits
# are GK_TIME_SCALE times as long on a slow machine.
wait_for() {
	local deadline=$((SECONDS + $1 * ${GK_TIME_SCALE:-1})) what=$2
	shift 2

	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || fail "waited in vain: $what"
		sleep 0.02
	done
}

# same A B [WHAT]: both texts are the same.
same() {
	[ "$1" = "$2" ] || fail "${3:-value}: got '$1', expected '$2'"
}

gone() {
	! kill -0 "$1" 2>/dev/null
}

# ---- servers ----

# nbdkit_at ADDRESS-OPTIONS... -- ARGS...: in the foreground, to see how it ends: nbdkit 1.32 may abort when a
# client goes away with requests outstanding, unless it has one thread a connection (-t 1).
nbdkit_at() {
	local address=()

	while [ "$1" != -- ]; do
		address+=("$1")
		shift
	done
	shift
	nbdkit -f "${address[@]}" -P "$dir/nbdkit.pid" "$@" 2>>"$dir/nbdkit.log" &
	# The socket listens before the file with the pid exists.
	wait_for 30 "nbdkit writes its pid" test -s "$dir/nbdkit.pid"
	server_pid=$(cat "$dir/nbdkit.pid")
	rm "$dir/nbdkit.pid"
	server_pids+=("$server_pid")
}

# nbdkit_unix ARGS...: on a Unix socket; sets uri and server_pid.
nbdkit_unix() {
	uri="nbd+unix:///?socket=$dir/nbd.sock"
	rm -f "$dir/nbd.sock"
	nbdkit_at -U "$dir/nbd.sock" -- "$@"
}

# nbdkit_tcp ARGS...: on 127.0.0.1, port 10809; sets uri and server_pid.
nbdkit_tcp() {
	uri=nbd://127.0.0.1/
	nbdkit_at -i 127.0.0.1 -p 10809 -- "$@"
}

# qemu_nbd ARGS...: sets uri and server_pid.
qemu_nbd() {
	uri="nbd+unix:///?socket=$dir/qemu.sock"
	qemu-nbd --fork --persistent --pid-file "$dir/qemu.pid" -k "$dir/qemu.sock" "$@"
	server_pid=$(cat "$dir/qemu.pid")
	server_pids+=("$server_pid")
}

# nbd_server EXPORT FILE [LINE...]: each LINE goes into the export's section; sets uri and server_pid.
nbd_server() {
	local export=$1 file=$2
	shift 2

	{
		printf '[generic]\nlistenaddr = 127.0.0.1\nport = 10810\nallowlist = true\n'
		printf '[%s]\nexportname = %s\n' "$export" "$file"
		[ $# = 0 ] || printf '%s\n' "$@"
	} >"$dir/nbd-server.conf"
	uri=nbd://127.0.0.1:10810/$export
	nbd-server -C "$dir/nbd-server.conf" -p "$dir/nbd-server.pid"
	wait_for 30 "nbd-server writes its pid" test -s "$dir/nbd-server.pid"
	server_pid=$(cat "$dir/nbd-server.pid")
	server_pids+=("$server_pid")
	wait_for 30 "nbd-server listens" nbdinfo --size "$uri" >/dev/null 2>&1
}

# stop_server [SIGNAL]: ends the server started last and waits until it is gone.
stop_server() {
	kill "-${1:-TERM}" "$server_pid"
	wait_for 30 "the server ends" gone "$server_pid"
}

# ---- gkproxy ----

# one_device [KEY=VALUE]...: writes a configuration with one device, vol0, at $uri. Values as in libconfig.
# $GK_DATA_PATH is the data path of devices that do not ask for one.
one_device() {
	local setting

	if [ -n "${GK_DATA_PATH:-}" ] && [[ " $*" != *" data_path="* ]]; then
		set -- "$@" "data_path=\"$GK_DATA_PATH\""
	fi
	{
		echo "devices = ( { name = \"vol0\"; id = 0; remote = \"$uri\";"
		[ $# = 0 ] || for setting; do
			echo "  ${setting%%=*} = ${setting#*=};"
		done
		echo "} );"
	} >"$conf"
}

ready_or_ended() {
	grep -q 'ready: all devices are up' "$log" || gone "$gkproxy_pid"
}

# start_gkproxy [KEY=VALUE]...: attaches one device and waits until it is up.
start_gkproxy() {
	one_device "$@"
	start_conf
}

# start_conf: the same with the configuration that is in $conf.
start_conf() {
	: >"$log"
	gkproxy -c "$conf" 2>>"$log" &
	gkproxy_pid=$!
	wait_for 60 "gkproxy says that the devices are up" ready_or_ended
	grep -q 'ready: all devices are up' "$log" || fail "gkproxy did not start"
}

# stop_gkproxy [SIGNAL]: the devices go and the exit status is 0.
stop_gkproxy() {
	local status=0

	kill "-${1:-TERM}" "$gkproxy_pid"
	wait_for 60 "gkproxy ends" gone "$gkproxy_pid"
	wait "$gkproxy_pid" || status=$?
	gkproxy_pid=
	same "$status" 0 "exit status of gkproxy"
	nothing_left
}

devices_left() {
	find /dev -name 'ublk[bc][0-9]*'
}

no_devices_left() {
	[ -z "$(devices_left)" ]
}

# nothing_left: no device and no process. devtmpfs follows the kernel at once; a process may need a moment.
nothing_left() {
	no_devices_left || fail "left behind: $(devices_left | tr '\n' ' ')"
	wait_for 10 "no process of gkproxy is left" no_gkproxy
}

no_gkproxy() {
	! pidof gkproxy gk-fence >/dev/null
}

# gkproxy_refuses REGEX: gkproxy ends with status 1 and one message, which matches REGEX (extended, without
# regard to case), and nothing is left behind.
gkproxy_refuses() {
	local status=0

	: >"$log"
	timeout $((60 * ${GK_TIME_SCALE:-1})) gkproxy -c "$conf" 2>>"$log" || status=$?
	same "$status" 1 "exit status of gkproxy"
	same "$(grep -c . "$log")" 1 "number of lines in '$(cat "$log")'"
	grep -qiE "$1" "$log" || fail "the message does not match '$1': $(cat "$log")"
	echo "   it says: $(cat "$log")"
	nothing_left
}

# status FILTER: what jq prints of the daemon's status.
status() {
	gkproxy status --json | jq -r "$1"
}

logged() {
	grep -qE "$1" "$log" || fail "gkproxy's log has no line like '$1'"
}

# fenced: gkproxy has taken devices over from one that was killed, whose connections were all seen to end before.
fenced() {
	! grep -q 'connections of the former gkproxy \(did not\|are known\)' "$log" ||
		fail "the connections of the former gkproxy were not seen to end"
}

# ---- data ----

# fio_verify NAME [ARGS...]: writes mixed sizes in random order over the device and reads them back, every
# block with its own checksum.
fio_verify() {
	fio --name="$1" --filename="$device" --ioengine=libaio --direct=1 --iodepth=64 \
		--rw=randwrite --bssplit=512/20:4k/40:16k/20:64k/10:256k/6:1m/4 \
		--size=48m --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=1 \
		--eta=never --output="$dir/fio.log" "${@:2}" ||
		fail "fio: $(cat "$dir/fio.log")"
	grep -E '^ *(read|write):' "$dir/fio.log"
}

# same_bytes A B: two devices or files hold the same bytes, up to the end of the shorter one.
same_bytes() {
	local a b

	a=$(size_of "$1")
	b=$(size_of "$2")
	cmp -n "$((a < b ? a : b))" "$1" "$2" || fail "$1 and $2 differ"
}

size_of() {
	if [ -b "$1" ]; then blockdev --getsize64 "$1"; else stat -c %s "$1"; fi
}

# ---- the kernel ----

kernel_log() {
	dmesg | sed -n "/gkproxy test begins: $test_name\$/,\$p"
}

kernel_complaints() {
	kernel_log | grep -E \
		'WARNING:|BUG:|Oops|general protection|KASAN|KCSAN|UBSAN|possible (circular|recursive) lock|hung_task|blocked for more than|soft lockup|refcount_t:|Call Trace'
}

finish() {
	local code=$? pid

	trap - EXIT
	set +e
	if [ "$code" = 0 ]; then
		[ -z "$gkproxy_pid" ] || stop_gkproxy
		(nothing_left) || code=1
	fi
	if [ -n "$gkproxy_pid" ]; then
		# The test has failed, perhaps while it kept gkproxy stopped: the next one still wants a guest
		# without devices.
		kill -TERM "$gkproxy_pid"
		kill -CONT "$gkproxy_pid"
		(wait_for 30 "gkproxy ends" gone "$gkproxy_pid") || kill -KILL "$gkproxy_pid"
	fi
	for pid in "${server_pids[@]}"; do
		kill -KILL "$pid" 2>/dev/null
	done
	# Lazily: the device may be one that waits for a gkproxy that does not come.
	umount -l /mnt 2>/dev/null
	if kernel_complaints >"$dir/complaints"; then
		echo "FAILED: the kernel complains" >&2
		kernel_log | tail -n 80 >&2
		code=1
	fi
	if [ "$code" != 0 ] && [ "$code" != 77 ] && [ -s "$log" ]; then
		echo "---- gkproxy's log:" >&2
		tail -n 60 "$log" >&2
	fi
	rm -rf "$dir"
	exit "$code"
}

trap finish EXIT
echo "gkproxy test begins: $test_name" >/dev/kmsg
