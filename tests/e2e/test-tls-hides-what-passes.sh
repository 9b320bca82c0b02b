#!/bin/bash
# SPDX-License-Identifier: MIT
# What passes between gkproxy and the server is captured: in the clear all of it is readable, under TLS nothing.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/tls.sh"

export=a-name-nobody-may-read
marker=0123456789abcdefghijklmnopqrstuvwxyz-what-nobody-may-read
bytes=$((256 << 10))
head -c "$bytes" < <(seq 1 9000 | sed "s/^/$marker /") >"$dir/payload"
same "$(stat -c %s "$dir/payload")" "$bytes" "size of the payload"

listens() {
	grep -q '^tcpdump: listening on' "$dir/tcpdump.log"
}

# readable WORD: in how many lines of the capture it stands. The grep of the guest sees no line behind a NUL.
readable() {
	tr -c ' -~' '\n' <"$pcap" | grep -c -e "$1" || true
}

# The payload there and back is all in the file, which grows as packets pass.
captured() {
	[ "$(stat -c %s "$pcap")" -gt $((2 * bytes)) ]
}

# capture NAME SETTING...: writes the payload and reads it back; sets pcap, and mode to what TLS there is.
capture() {
	local pid

	pcap=$dir/$1.pcap
	shift
	tcpdump -i lo -Z root -U --immediate-mode -B 65536 -w "$pcap" port 10809 2>"$dir/tcpdump.log" &
	pid=$!
	server_pids+=("$pid")
	wait_for 30 "tcpdump listens" listens
	start_gkproxy "$@"
	mode=$(status '[.devices[0].connections[].tls] | unique | join(" ")')
	dd if="$dir/payload" of="$device" bs=64k oflag=direct conv=fsync status=none
	dd if="$device" of="$dir/back" bs=64k count=$((bytes >> 16)) iflag=direct status=none
	cmp "$dir/payload" "$dir/back"
	stop_gkproxy
	wait_for 30 "all of it is captured" captured
	kill -INT "$pid"
	wait "$pid" || fail "tcpdump: $(cat "$dir/tcpdump.log")"
	grep -q '^0 packets dropped' "$dir/tcpdump.log" || fail "$(cat "$dir/tcpdump.log")"
	[ "$(readable IHAVEOPT)" -gt 0 ] || fail "the capture misses NBD's greeting, which is never encrypted"
	echo "   $mode: $(stat -c %s "$pcap") bytes captured, $(readable "$marker") readable lines of the payload"
}

step "in the clear"
nbdkit_tcp memory 16M
uri=nbd://127.0.0.1/$export
capture clear
same "$mode" off TLS
[ "$(readable "$export")" -gt 0 ] || fail "the capture misses the name of the export"
# Once when it is written and once when it is read, but for lines that packets cut in two.
lines=$(grep -c "^$marker" "$dir/payload")
[ "$(readable "$marker")" -gt $((lines * 3 / 2)) ] || fail "the capture misses the payload"
stop_server

nbdkit_tls memory 16M
uri=nbds://127.0.0.1/$export
for ktls in auto off; do
	step "ktls = $ktls"
	capture "$ktls" "$(with_certs "ktls = \"$ktls\";")"
	[ "$ktls" = auto ] || same "$mode" user TLS
	[ "$mode" != off ] || fail "no TLS"
	for word in "$export" "$marker" abcdefgh nobody; do
		same "$(readable "$word")" 0 "lines of the capture with \"$word\""
	done
done
