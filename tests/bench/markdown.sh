#!/bin/bash
# SPDX-License-Identifier: MIT
# markdown.sh REPORT...: the tables of the README, from what compare.sh and wire.sh wrote with --json.
set -euo pipefail

[ $# -gt 0 ] || {
	echo "usage: tests/bench/markdown.sh REPORT..." >&2
	exit 2
}
for report; do
	jq -r -f "$(dirname "$(realpath "$0")")/markdown.jq" "$report"
	echo
done
