#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: run.sh [PROGRAM...]
# Runs the self-tests that lie beside this script (default: those listed in the file "programs") in a
# virtual machine, as root, and looks through the kernel's log after each: a warning, a KASAN or
# lockdep report, a hung task or a stall fails the program that was running. Last line: totals.
# Status 0 only if nothing failed and nothing was skipped, or GK_ALLOW_SKIP is set.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# A program ends by itself; this ends one that a broken kernel keeps.
limit_s=$((${GK_PROGRAM_SECONDS:-3600} * ${GK_TIME_SCALE:-1}))
trouble='WARNING:|BUG:|KASAN|UBSAN|Oops|general protection|possible circular locking|possible recursive'
trouble+='|inconsistent lock state|held lock freed|suspicious RCU|sleeping function|INFO: task .* blocked'
trouble+='|rcu.*(stall|self-detected)|soft lockup|hard LOCKUP|Call Trace:|refcount_t:|workqueue lockup'

passed=0
failed=0
skipped=0
log=$(mktemp)
output=$(mktemp)
trap 'rm -f "$log" "$output"' EXIT

take_kernel_log()
{
	dmesg -c >"$log"
}

run_program()
{
	local name=$1 status=0 bad
	echo "# $name"
	timeout -k 30 "$limit_s" "$here/$name" 2>&1 | tee "$output"
	status=${PIPESTATUS[0]}
	passed=$((passed + $(grep -E '^ok ' "$output" | grep -cv '# SKIP')))
	skipped=$((skipped + $(grep -cE '^ok .*# SKIP' "$output")))
	bad=$(grep -cE '^not ok ' "$output")
	failed=$((failed + bad))
	if ! grep -qE '^1\.\.[0-9]+$' "$output"; then
		echo "not ok - $name did not reach its end (status $status)"
		failed=$((failed + 1))
	fi
	take_kernel_log
	if grep -qE "$trouble" "$log"; then
		echo "not ok - $name: the kernel complains:"
		cat "$log"
		failed=$((failed + 1))
	fi
}

if [[ $# -eq 0 ]]; then
	mapfile -t programs <"$here/programs"
	set -- "${programs[@]}"
fi
take_kernel_log
for program; do
	# grep -c fails when it counts nothing.
	set +e
	run_program "$program"
	set -e
done
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 && ($skipped -eq 0 || -n ${GK_ALLOW_SKIP:-}) ]]
