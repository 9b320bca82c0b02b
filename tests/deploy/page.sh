# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the pages of deploy/doc say to type, so that tests do exactly that. Sourced; docs is where the pages are.

# block PAGE LABEL: what stands between the line "```LABEL" of that page and the next "```".
block() {
	awk -v fence="\`\`\`$2" '$0 == fence { on = found = 1; next } /^```/ { on = 0 } on
		END { exit !found }' "$docs/$1.md" || {
		echo "FAILED: $1.md has nothing called '$2'" >&2
		exit 1
	}
}

# follow PAGE LABEL: types that block into a shell that stops at the first mistake.
follow() {
	echo "   $1.md: $2"
	block "$1" "sh $2" >"${TMPDIR:-/tmp}/block.sh"
	bash -euo pipefail "${TMPDIR:-/tmp}/block.sh"
}
