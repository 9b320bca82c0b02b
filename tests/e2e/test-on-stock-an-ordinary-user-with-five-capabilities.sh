#!/bin/bash
# SPDX-License-Identifier: MIT
# gkproxy(8), PRIVILEGES: an ordinary user with the five capabilities attaches disks like root; what each of them
# is for shows when it alone is missing; to a user without any, probe names all.
. "$(dirname "$0")/../lib/functions.sh"

all=(sys_admin sys_resource ipc_lock dac_override sys_ptrace)
program=$(type -P gkproxy)

# without [NAME...]: the list but for these.
without() {
	local name list=-all

	for name in "${all[@]}"; do
		[[ " $* " == *" $name "* ]] || list+=,+$name
	done
	export CAPABILITIES=$list
}

mkdir "$dir/bin"
cat >"$dir/bin/gkproxy" <<-END
	#!/bin/bash
	ulimit -l 64
	exec setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set "\$CAPABILITIES" \\
		--inh-caps "\$CAPABILITIES" --ambient-caps "\$CAPABILITIES" "$program" "\$@"
END
chmod 755 "$dir" "$dir/bin" "$dir/bin/gkproxy"
PATH=$dir/bin:$PATH
# Where the service manager makes it (RuntimeDirectory=).
mkdir -p /run/gkproxy
chown 1000:1000 /run/gkproxy
nbdkit_unix memory 64M

step "a user without any: probe names each"
setpriv --reuid 1000 --regid 1000 --clear-groups "$program" probe >"$dir/probe" || true
for name in "${all[@]}"; do
	grep -qE "^ *CAP_${name^^} +no: .+" "$dir/probe" || fail "probe says nothing about $name: $(cat "$dir/probe")"
done
grep -qiE '^ublk +no: .*permission' "$dir/probe" || fail "probe says nothing about ublk: $(cat "$dir/probe")"

of_daemon() {
	sed -n "s/^$1:\t//p" "/proc/$gkproxy_pid/status"
}

step "with all five"
without
start_gkproxy
same "$(of_daemon Uid)" $'1000\t1000\t1000\t1000' "its user"
for set in CapPrm CapEff CapBnd; do
	same "$(of_daemon "$set")" 0000000001284002 "$set"
done
same "$(of_daemon CapAmb) $(of_daemon CapInh) $(of_daemon NoNewPrivs)" "0000000000000000 0000000000000000 1" "the rest"
! grep -i warning "$log" || fail "something is missing"
fio_verify as-a-user

step "its control socket is for it and root, also when somebody has changed the mode"
same "$(stat -c '%u %a' /run/gkproxy/control.sock)" "1000 600" "owner and mode"
chmod 666 /run/gkproxy/control.sock
"$program" status >/dev/null || fail "root is refused"
gkproxy status >/dev/null || fail "the owner is refused"
! setpriv --reuid 2000 --regid 2000 --clear-groups "$program" status 2>"$dir/err" || fail "another user is served"
echo "   another user sees: $(cat "$dir/err")"
! grep -i 'permission' "$dir/err" || fail "it was not the daemon who refused"

step "who has it open is seen, also of another user"
sleep infinity <"$device" &
holder=$!
server_pids+=("$holder")
wait_for 10 "the device is open" eval '[ "$(readlink "/proc/$holder/fd/0")" = "$device" ]'
! gkproxy detach vol0 2>"$dir/detach" || fail "detached a device that is open"
grep -q sleep "$dir/detach" || fail "detach does not say who has it open: $(cat "$dir/detach")"
kill "$holder"
wait "$holder" || true
stop_gkproxy

# With SYS_RESOURCE it raises the limit of locked memory itself.
for missing in sys_resource ipc_lock sys_ptrace "sys_resource ipc_lock"; do
	step "without $missing it works, and says what is worse"
	read -r -a names <<<"$missing"
	without "${names[@]}"
	start_gkproxy
	same "$(gkproxy probe --daemon --json | jq -r '.capabilities | to_entries[] | select(.value.available | not) | .key' |
		sort | tr '\n' ' ')" "$(printf 'CAP_%s\n' "${names[@]^^}" | sort | tr '\n' ' ')" "what the daemon misses"
	case $missing in
	ipc_lock | sys_ptrace) ! grep -i warning "$log" || fail "a warning for nothing" ;;
	*) logged 'warning.*PR_SET_IO_FLUSHER.*CAP_SYS_RESOURCE' ;;
	esac
	[ "$missing" != "sys_resource ipc_lock" ] || logged 'warning.*memory is not locked.*CAP_IPC_LOCK'
	dd if=/dev/urandom of="$device" bs=1M count=4 oflag=direct status=none
	stop_gkproxy
done

for name in sys_admin dac_override; do
	step "without $name it is refused"
	without "$name"
	gkproxy_refuses 'permi'
done
