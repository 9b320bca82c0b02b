#!/bin/bash
# SPDX-License-Identifier: MIT
# valgrind.sh BUILD [all | TEST...]: gkproxy -t, gkproxy probe and test programs of that folder under valgrind: no access
# outside of what is allocated, nothing lost, and no use of what was never written. The last is not asked of wire tests:
# valgrind 3.19 does not know that the kernel writes what an io_uring RECV names.
set -euo pipefail

build=$(realpath "$1")
shift
tests=("$@")
# As many as take a few seconds together.
[ $# -gt 0 ] || tests=(test_daemon test_config_keys test_nbd_handshake test_nbd_uri test_mail test_wire_comes_back
	test_wire_closes_at_every_byte test_wire_sends_chunks test_wire_goes_away)
# Their servers are threads, and valgrind, which runs one thread at a time, does not let them run while another one is in
# io_uring_enter(): these would wait for ever. Keys that test_tls makes, and 10,000 rounds of something, take minutes.
never='test_tls test_wire_kernel_ring_is_small test_wire_kernel_stops_in_the_middle_of_chains test_wire_replies_out_of_order
	test_wire_reports_errors test_wire_serves_a_disk test_wire_serves_lent_pages test_wire_sits_on_old_writes
	test_wire_speaks_tls test_wire_survives_evil_servers test_wire_comes_and_goes test_daemon_comes_and_goes'
if [ "${1:-}" = all ]; then
	mapfile -t tests < <(find "$build/tests" -maxdepth 1 -type f -executable -name 'test_*' -printf '%f\n' |
		sort | grep -vxF "$(tr -s ' \t' '\n\n' <<<"$never")")
fi
tmp=$(mktemp -d "${TMPDIR:-/tmp}/gkproxy-valgrind.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
failed=0

# clean STATUS OPTIONS... -- COMMAND...: ends with STATUS, and valgrind has nothing to say.
clean() {
	local expected=$1 status=0 options=() start=$EPOCHREALTIME
	shift
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift

	valgrind --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
		--errors-for-leak-kinds=definite,indirect --log-file="$tmp/log" "${options[@]}" "$@" >"$tmp/out" 2>&1 || status=$?
	grep -q 'ERROR SUMMARY: 0 errors' "$tmp/log" && [ "$status" = "$expected" ] || {
		failed=$((failed + 1))
		echo "FAILED: exit status $status: $*"
		tail -n 40 "$tmp/out" "$tmp/log"
		return 0
	}
	printf 'clean %s (%.1f s)\n' "${*##*/}" "$(jq -n "$EPOCHREALTIME - $start")"
}

cat >"$tmp/proxy.conf" <<'END'
control = { metrics = "127.0.0.1:9105"; };
defaults = { queue_depth = 64; };
devices = (
  { name = "vol0"; remote = [ "nbds://[::1]:10809/vol0", "nbds://10.0.0.5/" ]; tls = { verify = false; }; },
  { name = "vol1"; remote = "nbd+unix:///vol1?socket=/run/nbd.sock"; on_exit = "keep"; }
);
END
echo 'devices = ( { name = "vol 0"; remote = "nbd://"; queue_depth = 0; what = 1; } );' >"$tmp/mistakes.conf"
clean 0 -- "$build/gkproxy" -t -c "$tmp/proxy.conf"
clean 1 -- "$build/gkproxy" -t -c "$tmp/mistakes.conf"
# A host without ublk, as most that build are, is told so by exit status 1.
status=0
"$build/gkproxy" probe >/dev/null 2>&1 || status=$?
clean "$status" -- "$build/gkproxy" probe
for test in "${tests[@]}"; do
	case $test in
	test_wire_*) clean 0 --undef-value-errors=no -- "$build/tests/$test" ;;
	*) clean 0 -- "$build/tests/$test" ;;
	esac
done
[ "$failed" = 0 ]
