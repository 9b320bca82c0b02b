#!/bin/bash
# SPDX-License-Identifier: MIT
# The image of the Dockerfile, built by buildah without a daemon on a Debian base made here, and the main job
# from inside it: guest-container.sh, in a virtual machine, with crun and only what compose.yml lists.
set -euo pipefail
shopt -s inherit_errexit

suite=${1:-trixie}
top=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
# shellcheck source=tests/deploy/debian.sh
. "$top/tests/deploy/debian.sh"
start_builder

# listed KEY: the items of that list in compose.yml, one a line.
listed() {
	awk -v key="$1:" '$1 == key { on = 1; next } on && $1 != "-" { exit }
		on { sub(/^ *- */, ""); gsub(/"/, ""); print }' "$top/deploy/container/compose.yml"
}

# rules: the device rules, as runc and crun take them; -1 is the major that the guest fills in.
rules() {
	listed device_cgroup_rules | sed -E 's/\$\{UBLK_MAJOR[^}]*\}/-1/' |
		jq -R 'split(" ") | (.[1] / ":") as $number | {allow: true, type: .[0], access: .[2],
			major: ($number[0] | tonumber)} + (if $number[1] == "*" then {} else
			{minor: ($number[1] | tonumber)} end)' | jq -s .
}

name=$(image "$suite" program)
build_with inspect --type image "$name" | jq .OCIv1.config >"$tmp/image.json"
jq -e '.Entrypoint == ["/usr/sbin/gkproxy"]' "$tmp/image.json" >"$tmp/answer" || fail "the entry point is another"
unpack "$name" "$tmp/root"
say "$(du -sh "$tmp/root" | cut -f1) unpacked, $(du -sh "$tmp/root/usr/sbin/gkproxy" | cut -f1) of it gkproxy"
mkdir -p "$tmp/root/run/gkproxy" "$tmp/root/etc/gkproxy"
: >"$tmp/root/etc/hosts"
# shellcheck disable=SC2016
in_system "$tmp/root" dpkg-query -W -f '${db:Status-Status} the image has ${Package} ${Version}\n' 'libssl3*' |
	sed -n 's/^installed //p' >"$tmp/openssl.txt"
[ -s "$tmp/openssl.txt" ] || fail "the image has no OpenSSL"
cat "$tmp/openssl.txt" >&2

caps=$(listed cap_add | jq -R '"CAP_" + .' | jq -sc .)
[ "$(listed cap_drop)" = ALL ] || fail "compose.yml does not drop all capabilities"
jq -n --argjson caps "$caps" --argjson rules "$(rules)" \
	--slurpfile seccomp "$top/deploy/container/seccomp.json" --slurpfile image "$tmp/image.json" '
	def device(major; minor): {allow: true, type: "c", major: major, minor: minor, access: "rwm"};
	{
		ociVersion: "1.0.2",
		process: {
			user: {uid: 0, gid: 0}, cwd: "/", args: ($image[0].Entrypoint + $image[0].Cmd),
			env: $image[0].Env, noNewPrivileges: true, oomScoreAdj: -1000,
			capabilities: {bounding: $caps, effective: $caps, permitted: $caps},
			# As compose.yml has them; jq knows no number for the first.
			rlimits: [{type: "RLIMIT_NOFILE", soft: 1048576, hard: 1048576},
				{type: "RLIMIT_MEMLOCK", soft: "unlimited", hard: "unlimited"}]
		},
		root: {path: "/mnt", readonly: true},
		mounts: [
			{destination: "/proc", type: "proc", source: "proc"},
			{destination: "/sys", type: "sysfs", source: "sysfs", options: ["ro", "nosuid", "noexec", "nodev"]},
			{destination: "/dev", type: "bind", source: "/dev", options: ["rbind", "rw"]},
			{destination: "/etc/hosts", type: "bind", source: "/etc/hosts", options: ["bind", "ro"]},
			{destination: "/run/gkproxy", type: "bind", source: "/run/gkproxy", options: ["rbind", "rw"]}
		],
		linux: {
			namespaces: [{type: "pid"}, {type: "mount"}, {type: "ipc"}, {type: "uts"}],
			maskedPaths: ["/proc/kcore", "/proc/keys", "/sys/firmware"],
			readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
			cgroupsPath: "/gkproxy",
			# What every container engine allows, and the list.
			resources: {devices: ([{allow: false, access: "rwm"}, device(1; 3), device(1; 5), device(1; 7),
				device(1; 8), device(1; 9), device(5; 0), device(5; 2)] + $rules)},
			seccomp: $seccomp[0]
		}
	}' >"$tmp/config.json"

mke2fs -q -t ext4 -d "$tmp/root" "$tmp/image.img" 600M >"$tmp/mke2fs.log" 2>&1
rm -rf "$tmp/root"
say "the main job from inside the container"
# One processor: crun switches cgroup controllers on, for which the kernel patches its code while it runs, and an
# emulated machine with two of them was seen to die of that (int3 in __alloc_pages).
GK_BUILD=none "$top/tests/vm/run.sh" -k stock -c 1 -t $((300 * ${GK_TIME_SCALE:-1})) -d "$tmp/image.img" \
	-f "$tmp/config.json:/gk/config.json" -f "$tmp/openssl.txt:/gk/openssl.txt" \
	-f "$top/tests/deploy" -p crun -p install bash tests/deploy/guest-container.sh
