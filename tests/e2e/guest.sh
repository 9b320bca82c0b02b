#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs tests one after the other inside a guest, for tests/run.sh, which reads the lines that start with @@.
# Ends early, with a line less, when a test leaves something behind that only a new guest gets rid of.
cd "$(dirname "$0")/../.." || exit 1

for test; do
	echo "@@ begin $test"
	start=${EPOCHREALTIME/[.,]/}
	timeout -k 10 "${GK_TEST_TIMEOUT:-180}" bash "tests/e2e/$test.sh" </dev/null 2>&1
	status=$?
	echo "@@ end $test $status $(((${EPOCHREALTIME/[.,]/} - start) / 1000))"
	if compgen -G '/dev/ublk[bc]*' >/dev/null; then
		echo "@@ dirty"
		exit 0
	fi
done
