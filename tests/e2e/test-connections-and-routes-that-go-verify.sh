#!/bin/bash
# SPDX-License-Identifier: MIT
# One of two connections is killed; the route to the server goes and comes back, for less and for more than
# request_timeout: nobody hears of it, what is sent is gone.
. "$(dirname "$0")/../lib/own-network.sh"
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

address=10.9.9.1
drop_route() { ip route del local "$address" dev lo table local; }
snmp() { awk -v name="$1" '$1 == "Ip:" { if (!n) { for (i = 1; i <= NF; i++) if ($i == name) n = i } else print $n }' /proc/net/snmp; }
restore_route() { ip route add local "$address" dev lo table local; }

truncate -s 64M "$dir/disk"
modprobe -q tcp_diag || true # for ss -K; where it is built in there is no module
ip address add "$address/32" dev lo
ip link set lo mtu 1500
uri=nbd://$address/
nbdkit_at -i "$address" -p 10809 -- -t 1 file "$dir/disk"
start_gkproxy queues=1 connections=2 request_timeout=5 connect_timeout=2 'unflushed="ignore"' \
	'zero_copy_threshold="16K"'
keep_working fio_verify gone --size=2m

step "one of two connections is killed"
kills=0
for _ in 1 2; do
	wait_for 60 "fio gets on" more_than "$(($(counter 'reads + .writes') + 50))" 'reads + .writes'
	before=$(counter reconnects)
	port=$(ss -Htn state established 'dport = :10809' | awk '{ sub(/.*:/, "", $3); print $3; exit }')
	ss -K state established "sport = :$port" dst "$address" >"$dir/ss"
	kills=$((kills + 1))
	wait_for 30 "the connection comes back" more_than "$before" reconnects
	wait_for 30 "all connections are back" is_up
done
happened "connections killed" "$kills"
happened reconnects "$(counter reconnects)"

step "the route goes, and is back before request_timeout"
wait_for 60 "fio gets on" more_than "$(($(counter 'reads + .writes') + 50))" 'reads + .writes'
timeouts=$(counter timeouts)
wait_for 60 "requests are in flight" in_flight
before=$(snmp OutNoRoutes)
drop_route
no_route() { [ "$(snmp OutNoRoutes)" -gt "$before" ]; }
wait_for 10 "a segment found no route" no_route
restore_route
wait_for 60 "fio gets on" more_than "$(($(counter 'reads + .writes') + 50))" 'reads + .writes'
same "$(counter timeouts)" "$timeouts" "timeouts"

step "the route goes for longer: half-open connections are given up"
wait_for 60 "requests are in flight" in_flight
drop_route
wait_for 60 "requests are overdue" more_than "$timeouts" timeouts
restore_route
wait_for 60 "all connections are back" is_up
wait_for 60 "fio gets on" more_than "$(($(counter 'reads + .writes') + 50))" 'reads + .writes'
enough
happened timeouts "$(counter timeouts)"
happened replays "$(counter replays)"
same "$(counter errors)" 0 errors
same_bytes "$device" "$dir/disk"
