# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Debian systems made from this machine's own mirror, container images on them, packages built in those.
# Sourced by the scripts beside it, which set top; everything is kept in the cache. Needs root, for debootstrap.

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

# in_system DIR COMMAND...: in that system, with nothing of this one's environment.
in_system() {
	local dir=$1
	shift

	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
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
	local suite=$1 archive dir base
	shift

	archive=$deploy_cache/$suite-$(recipe "$suite" "$@").tar
	if [ ! -e "$archive" ]; then
		mkdir -p "$deploy_cache"
		find "$deploy_cache" -maxdepth 1 -name '*.tar' -mtime +14 -delete
		dir=$(mktemp -d "$deploy_cache/$suite.XXXXXX")
		chmod 755 "$dir"
		if [ $# = 0 ]; then
			say "making a minimal Debian $suite"
			debootstrap --variant=minbase "$suite" "$dir" "$(mirror)" >"$dir.log" 2>&1 </dev/null ||
				fail "debootstrap: $(tail -n 5 "$dir.log")"
			rm -f "$dir.log"
		else
			base=$(system "$suite")
			say "installing $* in it"
			tar -C "$dir" -xf "$base"
			cp /etc/resolv.conf "$dir/etc/resolv.conf"
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

# build_with ARGS...: buildah without privileges of its own: no daemon, no overlay file system, a chroot.
build_with() {
	buildah --storage-driver vfs --root "$deploy_cache/images" --runroot "$deploy_cache/run" "$@"
}

# base_image SUITE: the image debian:SUITE-slim of the Dockerfile, from the archive above.
base_image() {
	local archive container name=docker.io/library/debian:$1-slim

	archive=$(system "$1")
	if [ "$(build_with inspect --type image --format '{{index .OCIv1.Config.Labels "recipe"}}' "$name" 2>/dev/null)" != \
	     "${archive##*/}" ]; then
		container=$(build_with from --pull=never scratch)
		build_with add -q "$container" "$archive" / >/dev/null
		build_with config --cmd bash --label "recipe=${archive##*/}" "$container"
		build_with commit -q --rm "$container" "$name" >/dev/null
	fi
}

# image SUITE TARGET: builds TARGET of the Dockerfile, as gkproxy-SUITE-TARGET; prints the name.
image() {
	local target name log=$deploy_cache/build-$1-$2.log

	base_image "$1"
	# The stage with the compiler has a name of its own, and so survives the pruning.
	for target in build "$2"; do
		name=gkproxy-$1-$target
		say "building the image $name"
		build_with bud --isolation chroot --pull=never --layers --build-arg "DEBIAN=$1" --target "$target" \
			-t "$name" "$top" >"$log" 2>&1 </dev/null || fail "buildah: $(tail -n 30 "$log")"
	done
	build_with rmi --prune >/dev/null 2>&1 || true
	echo "$name"
}

# unpack IMAGE DIR: the file system of an image.
unpack() {
	local container mounted

	container=$(build_with from --pull=never "$1")
	mounted=$(build_with mount "$container")
	mkdir -p "$2"
	cp -a "$mounted/." "$2"
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
		{ cmake -S "$top" -B "$build" -DBUILD_TESTING=OFF -DCMAKE_INSTALL_PREFIX=/usr &&
			cmake --build "$build" -j "$(nproc)" &&
			cpack --config "$build/CPackConfig.cmake" -B "$dir"; } >"$log" 2>&1 ||
			fail "cpack: $(tail -n 20 "$log")"
		rm -rf "$build"
	else
		unpack "$(image "$suite" deb)" "$dir"
	fi
	find "$dir" -maxdepth 1 -name '*.deb'
}
