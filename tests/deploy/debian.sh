# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Debian systems made from this machine's own mirror, container images on them, packages built in those.
# Sourced by the scripts beside it, which set top; everything is kept in the cache. Needs root, for debootstrap.
# Each step ends within a time of its own. Sets tmp, a folder that goes with the script.

vm_cache=${XDG_CACHE_HOME:-$HOME/.cache}/gkproxy
deploy_cache=$vm_cache/deploy
# shellcheck source=tests/vm/kernel.sh
. "$top/tests/vm/kernel.sh"

# A proxy that only apt knows of.
eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
[ -z "${http_proxy:-}" ] || export http_proxy

say() {
	echo "-- $*" >&2
}

# In a folder on a disk, which /tmp may not be.
tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/gkproxy-deploy.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# recipe WORDS...: a key that changes with how systems are made, the words and the week.
recipe() {
	{
		declare -f system in_system
		date +%G-%V
		printf '%s\n' "$@"
	} | sha256sum | cut -c1-16
}

# apart COMMAND...: what it mounts goes with it, however it ends.
apart() {
	if unshare --mount true 2>/dev/null; then unshare --mount "$@"; else "$@"; fi
}

# in_system DIR COMMAND...: in that system, with nothing of this one's environment.
in_system() {
	local dir=$1
	shift

	timeout -k 10 1200 env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
		chroot "$dir" "$@"
}

mirror() {
	own_sources | while read -r uri suite; do
		case $suite in
		*/* | *-*) ;;
		*) echo "$uri"; break ;;
		esac
	done
}

# system SUITE [PACKAGE...]: prints the path of an archive with a minimal Debian and those packages.
system() {
	local suite=$1 archive dir base uri include=()
	shift

	archive=$deploy_cache/$suite-$(recipe "$suite" "$@").tar
	if [ ! -e "$archive" ]; then
		mkdir -p "$deploy_cache"
		find "$deploy_cache" -maxdepth 1 -name '*.tar' -mtime +14 -delete
		# Left by one that was killed.
		find "$deploy_cache" -maxdepth 1 -name '*.??????' -type d -mmin +180 -exec rm -rf {} +
		dir=$(mktemp -d "$deploy_cache/$suite.XXXXXX")
		chmod 755 "$dir"
		if [ $# = 0 ]; then
			say "making a minimal Debian $suite"
			uri=$(mirror)
			[ -n "$uri" ] || fail "no mirror of Debian in this machine's apt configuration"
			[[ $uri != https:* ]] || include=(--include=ca-certificates)
			apart timeout -k 10 1200 debootstrap --variant=minbase ${include[@]+"${include[@]}"} \
				"$suite" "$dir" "$uri" >"$dir.log" 2>&1 </dev/null ||
				fail "debootstrap: $(tail -n 5 "$dir.log")"
			rm -f "$dir.log"
		else
			base=$(system "$suite")
			say "installing $* in it"
			tar -C "$dir" -xf "$base"
			[ ! -e /etc/resolv.conf ] || cp --remove-destination /etc/resolv.conf "$dir/etc/resolv.conf"
			in_system "$dir" apt-get -qq update >&2 </dev/null
			in_system "$dir" apt-get -qq -y --no-install-recommends install "$@" >"$dir.log" 2>&1 </dev/null ||
				fail "apt-get: $(tail -n 5 "$dir.log")"
			rm -f "$dir.log"
		fi
		rm -rf "${dir:?}"/var/cache/apt/* "${dir:?}"/var/lib/apt/lists/*
		tar -C "$dir" -cf "$archive.new" .
		mv "$archive.new" "$archive"
		rm -rf "$dir"
	fi
	echo "$archive"
}

# ---- images, by a builder without privileges

# Who builds: this user, with so many ids from there on and no capability outside of its user namespace. The ids
# belong to nobody; root only writes them into the namespace's map, where newuidmap would want a line in /etc/subuid.
builder_uid=900000 builder_ids=65536
builder_store=
builder_pid=

# start_builder: a process that holds the namespace while this script lives (then its input ends), with the builder's
# folder as /mnt in it, since no other user may pass through root's cache. Where there are no user namespaces, root
# builds.
start_builder() {
	local answer=

	builder_store=$deploy_cache/builder
	mkdir -p "$builder_store"
	chown "$builder_uid:$builder_uid" "$builder_store"
	mkfifo "$tmp/builder"
	# shellcheck disable=SC2016
	exec {builder_input}> >(exec unshare --mount bash -c 'mount --bind "$1" /mnt && exec setpriv --reuid="$2" \
		--regid="$2" --clear-groups --inh-caps=-all unshare --user --mount bash -c "echo ready; exec cat"' \
		builder "$builder_store" "$builder_uid" >"$tmp/builder" 2>&1)
	builder_pid=$!
	if read -r -t 30 answer <"$tmp/builder" && [ "$answer" = ready ] &&
	   echo "0 $builder_uid $builder_ids" >"/proc/$builder_pid/uid_map" &&
	   echo "0 $builder_uid $builder_ids" >"/proc/$builder_pid/gid_map" &&
	   as_builder unshare --mount test -w /mnt && ! as_builder test -w /etc; then
		say "buildah runs without privileges: $(as_builder cat /proc/self/uid_map | tr -s ' ')"
		return
	fi
	say "BUILDAH RUNS AS ROOT, no user namespace here: ${answer:-no answer}"
	builder_pid=
	builder_store=$deploy_cache/builder-root
	mkdir -p "$builder_store"
}

# as_builder COMMAND...
as_builder() {
	timeout -k 10 1200 ${builder_pid:+nsenter --target "$builder_pid" --user --mount --setuid 0 --setgid 0} "$@"
}

# build_with ARGS...: buildah without a daemon or an overlay file system, all its files in one folder.
build_with() {
	local dir=$builder_store

	[ -z "$builder_pid" ] || dir=/mnt
	as_builder env HOME="$dir" TMPDIR="$dir" buildah --short-name-alias-conf "$dir/aliases.conf" \
		--storage-driver vfs --root "$dir/images" --runroot "$dir/run" "$@"
}

# builder_path NAME: where the builder finds NAME of its folder.
builder_path() {
	if [ -n "$builder_pid" ]; then echo "/mnt/$1"; else echo "$builder_store/$1"; fi
}

# base_image SUITE: the image debian:SUITE-slim of the Dockerfile, from the archive above.
base_image() {
	local archive container name=docker.io/library/debian:$1-slim

	archive=$(system "$1")
	if [ "$(build_with inspect --type image --format '{{index .OCIv1.Config.Labels "recipe"}}' "$name" 2>/dev/null)" != \
	     "${archive##*/}" ]; then
		install -m 644 "$archive" "$builder_store/base.tar"
		container=$(build_with from --pull=never scratch)
		build_with add -q "$container" "$(builder_path base.tar)" / >/dev/null
		build_with config --cmd bash --label "recipe=${archive##*/}" "$container"
		build_with commit -q --rm "$container" "$name" >/dev/null
		rm "$builder_store/base.tar"
	fi
}

# image SUITE TARGET: builds TARGET of the Dockerfile, as gkproxy-SUITE-TARGET; prints the name.
image() {
	local target name lock log=$deploy_cache/build-$1-$2.log source=$builder_store/source

	[ -n "$builder_store" ] || fail "start_builder comes first"
	exec {lock}>"$deploy_cache/lock"
	flock -w 3600 "$lock" || fail "another run has been building for an hour"
	base_image "$1"
	rm -rf "$source"
	mkdir "$source"
	tar -C "$top" --exclude-vcs --exclude='./build*' -cf - . | tar -C "$source" --no-same-owner -xf -
	chmod -R a+rX "$source"
	# The stage with the compiler has a name of its own, and so survives the pruning. The last one must go: what
	# is mounted into a step is no part of what buildah compares, and it would take the program of last time.
	build_with rmi -f "gkproxy-$1-$2" >/dev/null 2>&1 || true
	build_with rmi --prune >/dev/null 2>&1 || true
	for target in build "$2"; do
		name=gkproxy-$1-$target
		say "building the image $name"
		build_with bud --isolation chroot --pull=never --layers --build-arg "DEBIAN=$1" --target "$target" \
			-t "$name" "$(builder_path source)" >"$log" 2>&1 </dev/null || fail "buildah: $(tail -n 30 "$log")"
	done
	! sed '1,/ AS package$/d' "$log" | grep 'Using cache' >&2 || fail "the image has an old program in it"
	build_with rmi --prune >/dev/null 2>&1 || true
	rm -rf "$source"
	exec {lock}>&-
	echo "$name"
}

# unpack IMAGE DIR: the file system of an image.
unpack() {
	local container mounted

	container=$(build_with from --pull=never "$1")
	mounted=$(build_with mount "$container")
	mkdir -p "$2"
	as_builder tar -C "$mounted" -cf - . | tar -C "$2" --same-owner -xpf -
	build_with rm "$container" >/dev/null
}

# package SUITE DIR: builds the Debian package for that release in DIR and prints its path. For this machine's
# release right here, for another one in a container.
package() {
	local suite=$1 dir=$2 build log=$deploy_cache/package-$1.log

	mkdir -p "$dir" "$deploy_cache"
	if grep -qx "VERSION_CODENAME=$suite" /etc/os-release; then
		build=$dir.build
		say "building the package for this machine's Debian $suite"
		{ timeout 300 cmake -S "$top" -B "$build" -DBUILD_TESTING=OFF -DCMAKE_INSTALL_PREFIX=/usr &&
			timeout 900 cmake --build "$build" -j "$(nproc)" &&
			timeout 300 cpack --config "$build/CPackConfig.cmake" -B "$dir"; } >"$log" 2>&1 ||
			fail "cpack: $(tail -n 20 "$log")"
		rm -rf "$build"
	else
		unpack "$(image "$suite" deb)" "$dir"
	fi
	find "$dir" -maxdepth 1 -name '*.deb'
}
