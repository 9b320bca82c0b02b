#!/bin/bash
# SPDX-License-Identifier: MIT
# Each command is offered to the kernel exactly when the server advertises it.
. "$(dirname "$0")/../lib/functions.sh"

server_log=$dir/server.log
truncate -s 1M "$dir/disk"
cat >"$dir/plain" <<END
case \$1 in
get_size) stat -c %s "$dir/disk" ;;
pread) dd if="$dir/disk" iflag=skip_bytes,count_bytes skip=\$4 count=\$3 status=none ;;
can_write) exit 0 ;;
pwrite) dd of="$dir/disk" oflag=seek_bytes conv=notrunc seek=\$4 status=none ;;
*) exit 2 ;;
esac
END
chmod +x "$dir/plain"
nbdkit_unix --filter=log --filter=nozero sh "$dir/plain" logfile="$server_log" zeromode=none
start_gkproxy
same "$(cat /sys/block/ublkb0/queue/discard_max_bytes)" 0 "largest discard"
same "$(cat /sys/block/ublkb0/queue/write_zeroes_max_bytes)" 0 "largest zeroing"
same "$(cat /sys/block/ublkb0/queue/fua)" 0 FUA
same "$(cat /sys/block/ublkb0/queue/write_cache)" "write through" cache
! blkdiscard "$device" 2>/dev/null || fail "a discard was accepted"

step "fsync succeeds, zeroing falls back to writing zeroes"
dd if=/dev/urandom of="$device" bs=64k count=4 oflag=direct conv=fsync status=none
blkdiscard -z -o 65536 -l 131072 "$device"
cmp -n 131072 -i 65536:0 "$device" /dev/zero
same_bytes "$device" "$dir/disk"
! grep -E ' (Flush|Trim|Zero) ' "$server_log" || fail "the server was sent what it does not offer"
