#!/bin/bash
# SPDX-License-Identifier: MIT
# A server written in shell (nbdkit sh), which sleeps for a random time before each of many requests that
# it works on at once.
. "$(dirname "$0")/../lib/functions.sh"

truncate -s 1M "$dir/disk"
cat >"$dir/server" <<END
#!/bin/bash
nap() { read -r -t 0.0\$((RANDOM % 10)) <>"$dir/never" || :; }
case \$1 in
thread_model) echo parallel ;;
get_size) echo $((1 << 20)) ;;
can_write | can_flush) exit 0 ;;
pread) nap; dd if="$dir/disk" iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none ;;
pwrite) nap; dd of="$dir/disk" oflag=seek_bytes conv=notrunc seek=\$4 status=none ;;
flush) ;;
*) exit 2 ;;
esac
END
chmod +x "$dir/server"
mkfifo "$dir/never"
nbdkit_unix -t 8 --filter=log sh "$dir/server" logfile="$dir/server.log"
start_gkproxy queues=1 connections=1 connect_timeout=60.0
fio_verify random-order --size=256k --bssplit=512/30:4k/40:16k/30
same_bytes "$device" "$dir/disk"
stop_gkproxy
awk '/\.\.\.(Read|Write) id=/ { sub(/.*id=/, ""); n = $1 + 0; if (n < last) overtaken++; last = n }
     END { print "   overtaken: " overtaken + 0; exit !overtaken }' "$dir/server.log" ||
	fail "no reply was overtaken: the test proves nothing"
