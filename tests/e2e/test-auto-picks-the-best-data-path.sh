#!/bin/bash
# SPDX-License-Identifier: MIT
# What auto has to pick is known from the kernel that the machine was booted with, not from gkproxy's probe.
. "$(dirname "$0")/../lib/functions.sh"

unset GK_DATA_PATH
nbdkit_unix memory 16M
at_least() {
	printf '%s\n%s\n' "$1" "$(uname -r)" | sort -VC
}

if grep -q ' io_provide_group_kbuf$' /proc/kallsyms; then
	best=group
elif at_least 7.2; then
	best=registered
else
	best=copy
fi
echo "   $(uname -r): $best"

step "auto"
start_gkproxy
same "$(status '.devices[0].data_path')" "$best" "data path"
logged "data path $best"
why=$(status '.devices[0].data_path_why')
case $best in
copy)
	[[ $why == *"not group: io_uring has no SQE groups"* && $why == *"not registered: "* ]] ||
		fail "the status does not say why not better: '$why'"
	logged "data path copy \(not group: .*; not registered: "
	;;
*) same "$why" "" "reason not to take a better one" ;;
esac
stop_gkproxy

for path in group registered copy; do
	step "$path"
	one_device "data_path=\"$path\""
	if [ "$path" = copy ] || [ "$path" = "$best" ]; then
		start_conf
		same "$(status '.devices[0].data_path')" "$path" "data path"
		fio_verify "$path" --size=4m
		stop_gkproxy
		continue
	fi
	case $path in
	group) gkproxy_refuses 'IORING_FEAT_SQE_GROUP.*data_path = "auto"' ;;
	registered) gkproxy_refuses '(UBLK_F_AUTO_BUF_REG|IORING_RECVSEND_FIXED_BUF).*data_path = "auto"' ;;
	esac
done
