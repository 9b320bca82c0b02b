#!/bin/bash
# SPDX-License-Identifier: MIT
# PR_SET_IO_FLUSHER has its effect: memory that gkproxy allocates does not wait for block I/O, in a queue's thread, in
# the one that dials servers anew, or in gk-fence. It shows as PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE in the task's
# flags (include/linux/sched.h, proc_pid_stat(5) field 9).
. "$(dirname "$0")/../lib/functions.sh"

nbdkit_unix memory 16M
start_gkproxy queues=2 connections=2
flushers=0
for task in /proc/"$gkproxy_pid"/task/* "/proc/$(pidof gk-fence)"; do
	# What stands before the last ')' may contain anything.
	read -r _ _ _ _ _ _ flags _ < <(sed 's/.*) //' "$task/stat")
	(((flags & 0x180000) == 0x180000)) || fail "$(cat "$task/comm") has flags $(printf '0x%x' "$flags")"
	flushers=$((flushers + 1))
done
# Control, two queues, reconnection, gk-fence.
[ "$flushers" -ge 5 ] || fail "only $flushers threads were looked at"
! grep -q PR_SET_IO_FLUSHER "$log" || fail "gkproxy complains: $(cat "$log")"
