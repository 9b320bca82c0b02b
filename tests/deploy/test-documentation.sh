#!/bin/bash
# SPDX-License-Identifier: MIT
# test-documentation.sh BUILD: gkproxy(8) and the bash completion know every command and option that --help
# shows; the pages have no mistake that mandoc finds; every example of a configuration is one; links lead
# somewhere; the messages that troubleshooting.md explains are messages of the program.
set -euo pipefail

top=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
gkproxy=$1/gkproxy
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

complain() {
	echo "FAILED: $*" >&2
	failed=1
}

cd "$top"
mandoc -T lint -W warning deploy/man/* >&2 || complain "mandoc finds mistakes"

# ---- commands and options
"$gkproxy" --help >"$tmp/help"
mapfile -t commands < <(sed -nE 's/^.* gkproxy ([a-z][a-z-]*).*$/\1/p' "$tmp/help" | sort -u)
[ ${#commands[@]} -ge 2 ] || complain "--help shows no commands"
# shellcheck source=deploy/gkproxy.bash
. deploy/gkproxy.bash

# offers WORD [BEFORE...]: completion of "gkproxy BEFORE... " offers WORD.
offers() {
	local word=$1
	shift

	COMP_WORDS=(gkproxy "$@" "${word:0:2}")
	COMP_CWORD=$(($# + 1))
	_gkproxy
	# Not by a pipe: the writer of one whose reader has seen enough fails.
	grep -qxF -- "$word" <<<"$(printf '%s\n' "${COMPREPLY[@]}")"
}

# documented OPTION [COMMAND]
documented() {
	case $1 in
	--*) grep -qE "Fl -${1#--}( |\$)" deploy/man/gkproxy.8 ;;
	*) grep -qE "Fl ${1#-}( |\$)" deploy/man/gkproxy.8 ;;
	esac || complain "gkproxy(8) does not know $* "
}

for command in "${commands[@]}"; do
	grep -qE "^\.It Cm $command( |\$)" deploy/man/gkproxy.8 || complain "gkproxy(8) does not describe $command"
	offers "$command" || complain "completion does not know $command"
	"$gkproxy" "$command" --help >"$tmp/help-$command" || complain "$command --help fails"
	mapfile -t options < <({ cat "$tmp/help-$command"; echo --help; } | grep -oE -- '--[a-z][a-z-]*' | sort -u)
	for option in "${options[@]}"; do
		documented "$option" "$command"
		offers "$option" "$command" || complain "completion does not know $command $option"
	done
done
mapfile -t options < <(grep -oE -- '(^|[ [])-(-[a-z-]+|[a-z])' "$tmp/help" | tr -d ' [' | sort -u)
for option in "${options[@]}"; do
	documented "$option"
	offers "$option" || offers "$option" -c x || grep -q -- "$option" "$tmp"/help-* ||
		complain "completion does not know $option"
done

# ---- examples: what stands between ```conf [LABEL] and ```, and in the page's display
n=0
for file in README.md deploy/doc/*.md; do
	awk -v prefix="$tmp/example-$n-" '/^```conf( |$)/ { on = 1; k++; next } /^```/ { on = 0 }
		on { print > (prefix k ".conf") }' "$file"
	n=$((n + 1))
done
awk '/^\.Bd/ { on = 1; next } /^\.Ed/ { on = 0 } on' deploy/man/proxy.conf.5 >"$tmp/example-page.conf"
cp deploy/proxy.conf "$tmp/example-sample.conf"
awk '/^  proxy.conf: \|/ { on = 1; next } /^---/ { on = 0 } on' deploy/container/daemonset.yml \
	>"$tmp/example-daemonset.conf"
examples=("$tmp"/example-*.conf)
[ ${#examples[@]} -ge 5 ] || complain "there are only ${#examples[@]} examples"
for example in "${examples[@]}"; do
	"$gkproxy" -t -c "$example" || complain "an example is no configuration: $(cat "$example")"
done

# ---- links between pages
for file in README.md deploy/doc/*.md; do
	{ grep -oE '\]\([^)#:]+' "$file" || true; } | sed 's/^](//' | while read -r link; do
		[ -e "$(dirname "$file")/$link" ] || echo "$file: $link"
	done
done >"$tmp/dead"
[ ! -s "$tmp/dead" ] || complain "links that lead nowhere: $(cat "$tmp/dead")"

# ---- messages: ### `text … text`, where … is what changes
n=0
while read -r message; do
	n=$((n + 1))
	while read -r piece; do
		[ -z "$piece" ] || grep -qF -- "$piece" "$gkproxy" || complain "no message says '$piece'"
	done < <(sed 's/ *… */\n/g' <<<"$message")
done < <(sed -n 's/^### `\(.*\)`$/\1/p' deploy/doc/troubleshooting.md)
[ "$n" -ge 5 ] || complain "troubleshooting.md explains only $n messages"
exit "$failed"
