#!/bin/bash
# SPDX-License-Identifier: MIT
# promtool.sh BUILD: the metrics are as Prometheus' own checker wants them. It comes from Debian's prometheus
# package, of which nothing else is unpacked and nothing is started.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/gkproxy/promtool
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

if [ ! -x "$cache/promtool" ]; then
	(cd "$tmp" && apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root download prometheus)
	dpkg-deb --fsys-tarfile "$tmp"/prometheus_*.deb | tar -x -C "$tmp" ./usr/bin/promtool
	mkdir -p "$cache"
	mv "$tmp/usr/bin/promtool" "$cache/"
fi
"$1/tests/test_metrics" "$tmp/metrics"
"$cache/promtool" check metrics <"$tmp/metrics"
# It does complain of what is wrong.
! sed 's/_bytes_total/_bytes/' "$tmp/metrics" | "$cache/promtool" check metrics >"$tmp/complaints" 2>&1 || {
	echo "promtool takes anything" >&2
	exit 1
}
grep -q 'should' "$tmp/complaints"
