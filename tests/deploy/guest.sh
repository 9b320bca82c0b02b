# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the scripts that machine.sh boots have in common. They run as a unit, once in each boot; $stage says which.
set -euo pipefail

docs=/run/gk/deploy/doc
# shellcheck source=tests/deploy/page.sh
. /run/gk/tests/deploy/page.sh
stage=$(cat /root/stage 2>/dev/null || echo 1)

finish() {
	local status=$?

	trap - EXIT
	if [ "$status" != 0 ]; then
		systemctl --no-pager --failed
		journalctl --no-pager -b | tail -n 60
	fi
	echo "$status" >/dev/ttyS2
	# The end of the machine is part of the test: it resets only when everything has stopped.
	systemctl reboot --no-block
}
trap finish EXIT

fail() {
	echo "FAILED: $*"
	exit 1
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
	local deadline=$((SECONDS + $1 * ${GK_TIME_SCALE:-1})) what=$2
	shift 2

	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || fail "waited in vain: $what"
		sleep 0.1
	done
}

# journal JOURNAL-OPTIONS...: into a file, since a grep that has seen enough would break the pipe.
journal() {
	journalctl --no-pager -o cat "$@" >/run/journal.txt
}

# next_stage: the next boot goes on; this one has nothing more to do than to end.
next_stage() {
	date +%s >/root/end
	echo $((stage + 1)) >/root/stage
}

# last_end JOURNAL-OPTIONS...: the journal of the last boot, from there on.
last_end() {
	journal -b -1 --since "@$(cat /root/end)" "$@"
}

# before LINE-A LINE-B: the journal in the file has a line like A, and after it the first one like B.
before() {
	local n m

	n=$(grep -nm1 -E "$1" /run/journal.txt | cut -d: -f1) || fail "no line like $1"
	m=$(grep -nm1 -E "$2" /run/journal.txt | cut -d: -f1) || fail "no line like $2"
	[ "$n" -lt "$m" ] || fail "'$2' came before '$1'"
}

disks() {
	find /dev -name 'ublkb*[0-9]' ! -name '*p[0-9]*' | wc -l
}

# encrypted COMMAND...: every connection in this status is, by the kernel.
encrypted() {
	local tls

	tls=$("$@" | tr -d ' \n' | grep -oE '"tls(_version)?":"[^"]*"' | sort -u | tr '\n' ' ')
	echo "   $tls"
	[ "$tls" = '"tls":"ktls-both" "tls_version":"TLSv1.3" ' ] || fail "not encrypted, or not by the kernel: $tls"
}
