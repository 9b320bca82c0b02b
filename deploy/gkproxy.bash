# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Bash completion of gkproxy.

_gkproxy() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} words=

	COMPREPLY=()
	case $before in
	-c | --socket | --state-dir)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return
		;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		words='probe status attach detach reload log-level -c -t --help --version'
	else
		case $command in
		probe) words='nbd:// nbds:// nbd+unix:// nbds+unix:// nbd+vsock:// nbds+vsock:// --json --daemon --socket --remove --state-dir --help' ;;
		attach) words='nbd:// nbds:// nbd+unix:// nbds+unix:// nbd+vsock:// nbds+vsock:// --name --json --socket --help' ;;
		reload) words='--json --socket --help' ;;
		log-level) words='error warning info debug --json --socket --help' ;;
		status | detach)
			words='--json --socket --help'
			[ "$command" = status ] && words+=' --watch' || words+=' --force'
			# The names of devices, when there is a daemon that tells them.
			[[ $word == -* ]] || words+=" $(gkproxy status --json 2>/dev/null |
				sed -n 's/^ *"name": "\(.*\)",*$/\1/p' | tr '\n' ' ')"
			;;
		-*) words='-c -t' ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _gkproxy gkproxy
