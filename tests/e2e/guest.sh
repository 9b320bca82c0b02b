#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs tests one after the other inside a guest, for tests/run.sh, which reads the lines that start with @@.
# Ends after the first test that fails.
cd "$(dirname "$0")/../.." || exit 1

for test; do
	echo "@@ begin $test"
	start=${EPOCHREALTIME/[.,]/}
	timeout -k 10 $((${GK_TEST_TIMEOUT:-300} * ${GK_TIME_SCALE:-1})) bash "tests/e2e/$test.sh" </dev/null 2>&1
	status=$?
	echo "@@ end $test $status $(((${EPOCHREALTIME/[.,]/} - start) / 1000))"
	# What a failed test left in the kernel is not worth finding out: the rest gets a new guest.
	[ "$status" = 0 ] || exit 0
done
