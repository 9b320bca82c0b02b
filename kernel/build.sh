#!/bin/bash
# SPDX-License-Identifier: MIT
# Builds Debian's Linux 6.12 with the series in kernel/patches. See usage below.
set -euo pipefail

tested_version=6.12.117
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gkproxy/kernel
jobs=${GK_JOBS:-$(nproc)}
package=linux-source-6.12

usage()
{
	cat <<'END'
usage: kernel/build.sh --test | --debug | --stock-test | --each | --check | --deb [FLAVOUR | FILE]
  --test        the small kernel of the test virtual machine, with the series
  --debug       the same with KASAN, lockdep and fault injection
  --stock-test  the same as --test without the series, to compare with
  --each        the same as --test with the first patch only, with two, ... with all
  --check       the series applies; what it changes compiles with Debian's full configuration
  --deb         Debian packages for a real host, with Debian's configuration of that FLAVOUR (amd64;
                cloud-amd64 is several times smaller) or a configuration from a FILE
The last line on stdout is the path of the bzImage (--each: one line for each; --deb: of the
linux-image package; --check: "ok").
Everything is kept in ${XDG_CACHE_HOME:-~/.cache}/gkproxy/kernel. GK_JOBS limits the parallel jobs.
END
}

say()
{
	echo "build.sh: $*" >&2
}

die()
{
	say "$*"
	exit 1
}

as_root()
{
	if [[ $(id -u) -eq 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "needs root or sudo for: $*"
	fi
}

install_packages()
{
	local missing=() name
	for name; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] ||
			missing+=("$name")
	done
	[[ ${#missing[@]} -gt 0 ]] || return 0
	say "installing ${missing[*]}"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
		"${missing[@]}" >&2
}

# The version that is installed, or that would be: a cached kernel then needs no installation.
source_version()
{
	local version
	version=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null) || version=
	if [[ -z $version ]]; then
		version=$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
		if [[ -z $version || $version == '(none)' ]]; then
			install_packages "$package"
			version=$(dpkg-query -W -f '${Version}' "$package")
		fi
	fi
	echo "$version"
}

# The patches that count: all, or the first $upto.
series()
{
	[[ -e $here/patches/series ]] || return 0
	sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/patches/series" |
		awk -v upto="$upto" 'upto == "" || NR <= upto'
}

# Paths that the series creates, changes or removes.
touched_files()
{
	local patch
	for patch in $(series); do
		sed -n -E 's,^(---|\+\+\+) [ab]/([^[:space:]]+).*,\2,p' "$here/patches/$patch"
	done | sort -u
}

# A digest of the series, or of nothing for the kernel without it.
series_key()
{
	local file
	[[ $patched == no ]] || for file in $(series); do
		echo "$file"
		cat "$here/patches/$file"
	done | sha256sum
}

# One digest over everything that decides what the kernel is.
build_key()
{
	{
		echo "$source $flavour"
		cat "${fragments[@]}"
		series_key
	} | sha256sum | cut -c1-16
}

unpack_pristine()
{
	local archive=/usr/src/$package.tar.xz
	exec 7>"$cache/unpack.lock"
	flock 7
	if [[ -e $cache/$source/pristine ]]; then
		exec 7>&-
		return
	fi
	say "unpacking $archive"
	mkdir -p "$cache/$source"
	rm -rf "$cache/$source/pristine.new"
	mkdir "$cache/$source/pristine.new"
	tar -xf "$archive" -C "$cache/$source/pristine.new" --strip-components=1
	mv "$cache/$source/pristine.new" "$cache/$source/pristine"
	exec 7>&-
}

# Applies the series to copies of the files it touches, so that a failure leaves no tree half patched.
apply_series()
{
	local scratch=$1 pristine=$cache/$source/pristine file patch log
	for file in $(touched_files); do
		[[ -e $pristine/$file ]] || continue
		mkdir -p "$scratch/$(dirname "$file")"
		cp -p "$pristine/$file" "$scratch/$file"
	done
	log=$scratch.log
	for patch in $(series); do
		patch -d "$scratch" -p1 --fuzz=0 --no-backup-if-mismatch -f \
			<"$here/patches/$patch" >"$log" 2>&1 && continue
		say "$patch does not apply to $package $source:"
		awk '/^patching file / { file = $3 }
			/^Hunk .* FAILED/ { print "  " file ": " $0 }
			/find file to patch/ { print "  " $0 }' "$log" >&2
		die "the series was last tested with $tested_version"
	done
}

# Only files whose content differs are replaced: make then rebuilds what the new series changes.
update_patched_tree()
{
	local pristine=$cache/$source/pristine scratch file
	scratch=$(mktemp -d "$cache/series.XXXXXX")
	# shellcheck disable=SC2064 # the path is known now and gone later
	trap "rm -rf '$scratch' '$scratch.log'" EXIT
	apply_series "$scratch"
	if [[ ! -e $tree ]]; then
		rm -rf "$tree.new"
		cp -al "$pristine" "$tree.new"
		: >"$tree.new/.gk_touched"
		: >"$tree.new/.gk_series"
		mv "$tree.new" "$tree"
	fi
	for file in $( (cat "$tree/.gk_touched" && touched_files) | sort -u); do
		if [[ -e $scratch/$file ]]; then
			replace_file "$scratch/$file" "$tree/$file"
		elif [[ -e $pristine/$file ]] && ! touched_files | grep -qxF "$file"; then
			replace_file "$pristine/$file" "$tree/$file"
		else
			rm -f "$tree/$file"
		fi
	done
	touched_files >"$tree/.gk_touched"
	series_key >"$tree/.gk_series"
	rm -rf "$scratch" "$scratch.log"
	trap - EXIT
}

# By rename: the target may be a hard link to the pristine file.
replace_file()
{
	cmp -s "$1" "$2" && return 0
	mkdir -p "$(dirname "$2")"
	cp "$1" "$2.gk_new"
	mv "$2.gk_new" "$2"
}

prepare_source()
{
	install_packages "$package" gcc make flex bison bc libelf-dev libssl-dev xz-utils patch "$@"
	source=$(source_version)
	[[ $source == "$tested_version"-* ]] ||
		say "note: this is $source; the series was last tested with $tested_version"
	tree=$cache/$source/$tree_name
	# Several may build from a tree at a time, while nobody changes it.
	exec 8>"$cache/tree-$tree_name.lock"
	until flock -s 8 && source_is_current; do
		flock -u 8
		flock -x 8
		unpack_pristine
		[[ $patched == no ]] || update_patched_tree
		flock -u 8
	done
}

source_is_current()
{
	if [[ $patched == yes ]]; then
		[[ -e $tree/.gk_series ]] && series_key | cmp -s - "$tree/.gk_series"
	else
		[[ -e $tree ]]
	fi
}

# Two builds of the same kind would share their objects.
lock_flavour()
{
	exec 9>"$cache/$flavour.lock"
	flock 9
}

kmake()
{
	make -C "$tree" O="$objects" -j"$jobs" \
		KBUILD_BUILD_USER=gkproxy KBUILD_BUILD_HOST=gkproxy "$@" >&2
}

# A line that Kconfig drops would make a test lose its subject without a word.
check_fragments()
{
	local line lost=0
	while read -r line; do
		grep -qxF "$line" "$objects/.config" && continue
		[[ $line == CONFIG_GKGRP_TEST=* && ! -e $tree/drivers/misc/gkgrp_test.c ]] && continue
		say "Kconfig does not accept $line"
		lost=1
	done < <(grep -hE '^(# )?CONFIG_' "${fragments[@]}")
	[[ $lost -eq 0 ]] || die "the configuration fragment does not fit $package $source"
}

# Of several lines about one symbol, and of several members of a choice, the last one holds.
merge_fragments()
{
	cat "$objects/.config" "${fragments[@]}" | tac |
		awk 'match($0, /CONFIG_[A-Za-z0-9_]+/) && !seen[substr($0, RSTART, RLENGTH)]++' | tac
}

# What the configuration is made of: olddefconfig forgets what one patch less does not know.
ingredients()
{
	cat "${fragments[@]}"
	touched_files
}

configure_small()
{
	local wanted=$objects/.gk_fragments
	mkdir -p "$objects"
	if [[ -e $objects/.config ]] && cmp -s "$wanted" <(ingredients); then
		kmake -s olddefconfig
	else
		kmake -s tinyconfig
		merge_fragments >"$wanted"
		mv "$wanted" "$objects/.config"
		"$tree/scripts/config" --file "$objects/.config" \
			--set-str LOCALVERSION "-gkproxy-$flavour" --disable LOCALVERSION_AUTO
		kmake -s olddefconfig
		ingredients >"$wanted"
	fi
	check_fragments
}

build_small()
{
	local published new
	source=$(source_version)
	published=$cache/images/$source-$flavour-$(build_key)
	if [[ ! -e $published/bzImage ]]; then
		lock_flavour
	fi
	if [[ ! -e $published/bzImage ]]; then
		prepare_source
		published=$cache/images/$source-$flavour-$(build_key)
		objects=$cache/$source/objects-$flavour
		say "building $(basename "$published")"
		configure_small
		kmake -s bzImage
		mkdir -p "$cache/images"
		new=$(mktemp -d "$cache/images/.new.XXXXXX")
		cp "$objects/arch/x86/boot/bzImage" "$objects/System.map" "$new/"
		cp "$objects/.config" "$new/config"
		chmod 755 "$new"
		rm -rf "$published"
		mv "$new" "$published"
	fi
	echo "$published/bzImage"
}

build_each()
{
	local count
	count=$(series | wc -l)
	for ((upto = 1; upto <= count; upto++)); do
		say "$upto of $count: $(series | tail -n1)"
		build_small
	done
}

# debian_config FLAVOUR
debian_config()
{
	xz -dc "/usr/src/linux-config-6.12/config.amd64_none_$1.xz"
}

# configure_full NAME OPTIONS...: a configuration from stdin. Debian's names Debian's signing keys, which
# are not in the source package.
configure_full()
{
	local name=$1
	shift
	mkdir -p "$objects"
	cat >"$objects/.config"
	"$tree/scripts/config" --file "$objects/.config" \
		--set-str SYSTEM_TRUSTED_KEYS "" --set-str SYSTEM_REVOCATION_KEYS "" \
		--set-str LOCALVERSION "-gkproxy-$name" --disable LOCALVERSION_AUTO \
		--set-str BUILD_SALT "" "$@"
	kmake -s olddefconfig
}

check()
{
	local file targets=(io_uring/)
	lock_flavour
	prepare_source linux-config-6.12
	objects=$cache/$source/objects-check
	configure_full check --enable GKGRP_TEST --enable IO_URING --module BLK_DEV_UBLK \
		< <(debian_config amd64)
	grep -q '^CONFIG_GKGRP_TEST=y' "$objects/.config" || [[ -z $(series) ]] ||
		die "the series has no CONFIG_GKGRP_TEST"
	# The headers that the series changes are io_uring's, so all of io_uring/ is compiled.
	for file in $(touched_files); do
		[[ $file != *.c || $file == io_uring/* ]] || targets+=("${file%.c}.o")
	done
	say "compiling ${targets[*]} with Debian's configuration"
	kmake -s prepare
	kmake -s KCFLAGS=-Werror "${targets[@]}"
	echo ok
}

# The packages lie beside the objects: that is where the kernel's own rules put them.
build_deb()
{
	local from=${1:-amd64} name folder image
	name=$from
	case $from in
	amd64 | cloud-amd64) ;;
	*)
		[[ -r $from ]] || die "no configuration file $from, nor a flavour amd64 or cloud-amd64"
		name=own
		;;
	esac
	flavour=deb-$name
	lock_flavour
	prepare_source linux-config-6.12 dpkg-dev debhelper fakeroot rsync kmod cpio openssl python3
	folder=$cache/$source/$flavour
	objects=$folder/objects
	if [[ $name == own ]]; then
		configure_full "$name" --disable GKGRP_TEST <"$from"
	else
		configure_full "$name" --disable GKGRP_TEST --disable DEBUG_INFO \
			--disable DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT --enable DEBUG_INFO_NONE \
			< <(debian_config "$name")
	fi
	rm -f "$folder"/*.deb "$folder"/*.buildinfo "$folder"/*.changes
	kmake bindeb-pkg
	image=$(find "$folder" -maxdepth 1 -name 'linux-image-*.deb' ! -name '*-dbg_*')
	[[ -n $image ]] || die "no linux-image package was made"
	echo "$image"
}

main()
{
	mkdir -p "$cache"
	fragments=("$here/vm-kernel.config")
	patched=yes
	tree_name=patched
	upto=
	source=
	tree=
	objects=
	case ${1:-} in
	--test)
		flavour="test"
		build_small
		;;
	--debug)
		flavour=debug
		fragments+=("$here/debug.config")
		build_small
		;;
	--stock-test)
		flavour=stock
		patched=no
		tree_name=pristine
		build_small
		;;
	--each)
		flavour=each
		tree_name=each
		build_each
		;;
	--check)
		flavour=check
		check
		;;
	--deb)
		# A tree of its own: it is in use for hours.
		tree_name=deb
		build_deb "${2:-}"
		;;
	*)
		usage >&2
		exit 2
		;;
	esac
}

main "$@"
