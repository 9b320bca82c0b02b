#!/bin/bash
# SPDX-License-Identifier: MIT
# Rounds of every fault in random order, for GK_CHAOS_SECONDS (600), under fio on a mounted ext4 and a mounted XFS, every
# byte verified. GK_CHAOS_SEED repeats an order. Not part of the ordinary run: tests/run.sh chaos.
. "$(dirname "$0")/../lib/own-network.sh"
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

address=10.9.9.1
seed=${GK_CHAOS_SEED:-$((RANDOM * 32768 + RANDOM))}
RANDOM=$seed
kinds=(server_killed server_frozen_shortly server_frozen_long daemon_killed daemon_restarted connection_killed
	packets_lost packets_reordered packets_duplicated route_dropped)
declare -A faults totals
workers=()
for kind in "${kinds[@]}"; do faults[$kind]=0; done
for name in reconnects replays timeouts unfenced_replays recovered; do totals[$name]=0; done

# shuffle: a new order of the kinds. Not in a subshell, which has a RANDOM of its own.
shuffle() {
	local i j kind

	for ((i = ${#kinds[@]} - 1; i > 0; i--)); do
		j=$((RANDOM % (i + 1)))
		kind=${kinds[i]} kinds[i]=${kinds[j]} kinds[j]=$kind
	done
}

# All devices' counters; a daemon's own are added to the totals before it goes.
sum() { status "[.devices[].counters.$1] | add"; }

tally() {
	local name

	for name in reconnects replays timeouts unfenced_replays; do
		totals[$name]=$((totals[$name] + $(sum $name)))
	done
	same "$(sum errors)" 0 errors
	same "$(sum poisoned)" 0 "requests given up"
}

waiting() { awk '{ n += $1 + $2 } END { print n }' /sys/block/ublkb[01]/inflight; }
at_work() { [ "$(waiting)" -gt 0 ]; }
all_up() { [ "$(status '[.devices[].state == "up"] | all' 2>/dev/null)" = true ]; }
ended() { status '[.devices[].counters | .reads + .writes] | add'; }
got_on() { [ "$(ended)" -gt "$1" ]; }

# get_on N: the work comes on by so many requests.
get_on() {
	wait_for 120 "the work gets on" got_on "$(($(ended) + $1))"
	[ ! -e "$dir/failed" ] || fail "the work failed: $(cat "$dir/failed")"
}

start_server() {
	nbdkit_at -i "$address" -p 10809 -- -t 1 file dir="$dir/exports"
}

# resume: gkproxy comes back and takes both devices over.
resume() {
	start_conf
	same "$(grep -c 'is taken over' "$log")" 2 "devices taken over"
}

server_killed() {
	wait_for 60 "requests are in flight" at_work
	kill -KILL "$server_pid"
	wait_for 30 "the server ends" gone "$server_pid"
	start_server
}

server_frozen_shortly() {
	kill -STOP "$server_pid"
	wait_for 30 "requests are in flight" at_work
	kill -CONT "$server_pid"
}

overdue() { [ "$(sum timeouts)" -gt "$1" ]; }

server_frozen_long() {
	local before

	before=$(sum timeouts)
	kill -STOP "$server_pid"
	wait_for 60 "a request is overdue" overdue "$before"
	kill -CONT "$server_pid"
}

daemon_killed() {
	tally
	# Stopped, it ends no request: what it is asked for now is in flight when it dies.
	kill -STOP "$gkproxy_pid"
	wait_for 60 "requests are in flight" at_work
	totals[recovered]=$((totals[recovered] + $(waiting)))
	kill -KILL "$gkproxy_pid"
	wait "$gkproxy_pid" 2>/dev/null || true
	resume
}

daemon_restarted() {
	wait_for 60 "requests are in flight" at_work
	tally
	kill -TERM "$gkproxy_pid"
	wait "$gkproxy_pid" || fail "gkproxy ended with status $?"
	resume
}

connection_killed() {
	local before port ports

	before=$(sum reconnects)
	mapfile -t ports < <(ss -Htn state established "dport = :10809" | awk '{ sub(/.*:/, "", $3); print $3 }' | sort)
	port=${ports[RANDOM % ${#ports[@]}]}
	ss -K state established "sport = :$port" dst "$address" >/dev/null
	wait_for 60 "the connection comes back" reconnected "$before"
}

reconnected() { [ "$(sum reconnects)" -gt "$1" ]; }

netem() {
	tc qdisc replace dev lo root netem limit 10000 "$@"
	get_on 100
	tc qdisc del dev lo root
}

packets_lost() { netem delay 1ms loss 5%; }
packets_reordered() { netem delay 5ms reorder 25% 50%; }
packets_duplicated() { netem duplicate 5%; }

# Half-open connections: neither side hears of it, what is sent is gone.
route_dropped() {
	wait_for 60 "requests are in flight" at_work
	ip route del local "$address" dev lo table local
	sleep "$((RANDOM % 4)).$((RANDOM % 10))"
	ip route add local "$address" dev lo table local
}

# work FS: again and again, until enough is said or it fails.
work() {
	local n=0

	trap - EXIT
	while [ ! -e "$dir/enough" ]; do
		n=$((n + 1))
		fio --name="$1-direct" --directory="$dir/mnt-$1" --size=6m --ioengine=libaio --direct=1 --iodepth=16 \
			--rw=randwrite --bssplit=4k/50:16k/25:128k/25 --verify=crc32c --do_verify=1 --verify_fatal=1 \
			--name="$1-cached" --directory="$dir/mnt-$1" --size=6m --ioengine=psync --rw=randwrite --fsync=64 \
			--bssplit=4k/70:64k/30 --verify=crc32c --do_verify=1 --verify_fatal=1 --end_fsync=1 \
			--allrandrepeat=0 --randseed=$((seed + n)) --eta=never >"$dir/fio-$1.log" 2>&1 || {
			tail -n 20 "$dir/fio-$1.log" >"$dir/failed"
			exit 1
		}
		echo "$n" >"$dir/passes-$1"
	done
}

echo "   seed $seed, kernel $(uname -r)"
modprobe -q tcp_diag || true # for ss -K; where it is built in there is no module
ip address add "$address/32" dev lo
ip link set lo mtu 1500
mkdir "$dir/exports" "$dir/mnt-ext4" "$dir/mnt-xfs"
truncate -s 320M "$dir/exports/ext4" "$dir/exports/xfs"
start_server
{
	echo 'defaults = { on_exit = "keep"; connections = 2; zero_copy_threshold = "16K"; unflushed = "ignore";'
	echo '  request_timeout = 3.0; connect_timeout = 3.0; };'
	echo 'devices = ('
	echo "{ name = \"ext4\"; id = 0; remote = \"nbd://$address/ext4\"; },"
	echo "{ name = \"xfs\"; id = 1; remote = \"nbd://$address/xfs\"; } );"
} >"$conf"
[ -z "${GK_DATA_PATH:-}" ] || sed -i "s/defaults = {/& data_path = \"$GK_DATA_PATH\";/" "$conf"
start_conf
mkfs.ext4 -q /dev/ublkb0
mkfs.xfs -q /dev/ublkb1
for n in 0 1; do
	fs=$([ $n = 0 ] && echo ext4 || echo xfs)
	mount "/dev/ublkb$n" "$dir/mnt-$fs"
	work "$fs" &
	workers+=($!)
done
path=$(status '.devices[0].data_path')
deadline=$((SECONDS + ${GK_CHAOS_SECONDS:-600}))
while [ "$SECONDS" -lt "$deadline" ]; do
	shuffle
	for kind in "${kinds[@]}"; do
		get_on $((RANDOM % 100 + 20))
		$kind
		wait_for 60 "all connections are back" all_up
		faults[$kind]=$((faults[$kind] + 1))
	done
	echo "   $((deadline - SECONDS)) s left: $(for kind in "${kinds[@]}"; do printf '%s %s, ' "$kind" "${faults[$kind]}"; done)"
done
touch "$dir/enough"
for pid in "${workers[@]}"; do
	wait "$pid" || fail "the work failed: $(cat "$dir/failed")"
done

step "the file systems are whole, on the devices and at the server"
umount "$dir/mnt-ext4" "$dir/mnt-xfs"
tally
e2fsck -fn /dev/ublkb0
xfs_repair -n /dev/ublkb1 >"$dir/repair" 2>&1 || fail "xfs_repair: $(cat "$dir/repair")"
sed -i 's/"keep"/"remove"/' "$conf"
kill -TERM "$gkproxy_pid"
wait "$gkproxy_pid" || fail "gkproxy ended with status $?"
start_conf
stop_gkproxy
e2fsck -fn "$dir/exports/ext4" >/dev/null
xfs_repair -n "$dir/exports/xfs" >"$dir/repair" 2>&1 || fail "xfs_repair: $(cat "$dir/repair")"
echo "   data path $path, verified passes: ext4 $(cat "$dir/passes-ext4"), XFS $(cat "$dir/passes-xfs")"
for kind in "${kinds[@]}"; do happened "$kind" "${faults[$kind]}"; done
for name in reconnects replays timeouts recovered; do happened "$name" "${totals[$name]}"; done
echo "   unfenced replays: ${totals[unfenced_replays]}"
