# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced before functions.sh by tests that change the network: they get one of their own, with a loopback
# device and TCP settings that go when the test ends, however it ends.
set -euo pipefail

[ -n "${own_network:-}" ] || own_network=1 exec unshare -n bash "$0"
ip link set lo up
