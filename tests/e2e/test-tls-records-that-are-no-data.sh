#!/bin/bash
# SPDX-License-Identifier: MIT
# Session tickets, new keys, the end of a connection and forged bytes between the records of kernel TLS:
# tests/wire/ktls_records.c, which needs a kernel that has it.
. "$(dirname "$0")/../lib/functions.sh"

modprobe -q tls || true
GK_RIG_TLS=1.3 ktls_records
