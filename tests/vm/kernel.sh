#!/bin/bash
# SPDX-License-Identifier: MIT
# Debian's kernels for the guest, downloaded and unpacked, never installed. Sourced by run.sh, which
# sets vm_cache and tmp.

# How long the newest package that was found counts as the newest.
kernel_fresh_minutes=1440

# own_sources: "URI SUITE" of every Debian archive in this machine's apt configuration. Before the
# first "apt-get update" apt does not know whose an archive is; then all are taken.
own_sources() {
	# shellcheck disable=SC2016  # apt expands these
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
		sed -n -e 's/^Debian //p' -e 's/^\$(ORIGIN) //p' | sort -u
}

# apt_private SUITES: fills $vm_cache/apt/NAME with an apt configuration of its own and sets apt_options
# for it. SUITES is "own" for the machine's suites, else names of suites to take from the machine's
# (non-security) mirror.
apt_private() {
	local dir=$vm_cache/apt/${1// /+} keyring suite uri

	for keyring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[ ! -e "$keyring" ] || break
	done
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	own_sources | while read -r uri suite; do
		[ "$1" != own ] || echo "deb [signed-by=$keyring] $uri $suite main"
		case $suite in
		*/* | *-*) ;;
		*)
			for suite in $1; do
				[ "$suite" = own ] || echo "deb [signed-by=$keyring] $uri $suite main"
			done
			;;
		esac
	done | sort -u >"$dir/sources.list"
	apt_options=(
		-o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=-
		-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache"
		-o APT::Sandbox::User=root -o Acquire::Languages=none -o APT::Update::Post-Invoke-Success=
		-o Acquire::Retries=3
	)
	apt-get "${apt_options[@]}" -qq update >&2
}

# newest_image LOWEST BELOW: name and version of the newest kernel image with LOWEST <= version < BELOW.
newest_image() {
	local arch name version

	arch=$(dpkg --print-architecture)
	apt-cache "${apt_options[@]}" search --names-only \
		"^linux-image-[0-9.]+\\+deb[0-9.]+-cloud-$arch(-unsigned)?\$" | cut -d' ' -f1 |
		xargs -r apt-cache "${apt_options[@]}" show |
		awk '/^Package: / { name = $2 } /^Version: / { print name, $2 }' |
		while read -r name version; do
			if dpkg --compare-versions "$version" ge "$1" &&
			   dpkg --compare-versions "$version" lt "$2"; then
				echo "$name $version"
			fi
		done | sort -k2,2V -k1,1r | tail -n1
}

# fetch_kernel NAME VERSION: downloads and unpacks; prints the folder with vmlinuz and lib/modules.
fetch_kernel() {
	local name=$1 dir=$vm_cache/kernels/${1#linux-image-}_$2 dest packages deb

	if [ ! -e "$dir" ]; then
		mkdir -p "$vm_cache/kernels"
		dest=$tmp/$name
		mkdir "$dest"
		# From 7.2 on the image package is empty and depends on one with the kernel and one
		# with its modules.
		mapfile -t packages < <(apt-cache "${apt_options[@]}" depends "$name" |
			sed -n 's/^ *Depends: \(linux-\(binary\|modules\)-[0-9].*\)/\1/p')
		(cd "$dest" && apt-get "${apt_options[@]}" -qq download "$name" "${packages[@]}" >&2)
		for deb in "$dest"/*.deb; do
			dpkg-deb -x "$deb" "$dest/root"
		done
		mkdir -p "$dest/kernel/lib/modules"
		mv "$dest"/root/lib/modules/* "$dest/kernel/lib/modules" 2>/dev/null ||
			mv "$dest"/root/usr/lib/modules/* "$dest/kernel/lib/modules"
		mv "$dest"/root/boot/vmlinuz-* "$dest/kernel/vmlinuz" 2>/dev/null ||
			mv "$dest"/kernel/lib/modules/*/vmlinuz "$dest/kernel/vmlinuz"
		# What the split packages leave out and depmod and modprobe ask for.
		(cd "$dest"/kernel/lib/modules/* && touch modules.order modules.builtin modules.builtin.modinfo)
		depmod -b "$dest/kernel" "$(ls "$dest/kernel/lib/modules")"
		rm -rf "$dir.new"
		mv "$dest/kernel" "$dir.new"
		mv "$dir.new" "$dir"
		rm -rf "$dest"
	fi
	echo "$dir"
}

# debian_kernel stock|mainline: prints the folder of the newest package of that kind. What was found
# counts for a day; when no mirror answers, the last one found is used.
debian_kernel() {
	local kind=$1 known=$vm_cache/kernels/$1 suites lowest below found

	case $kind in
	stock) suites=(own bookworm-backports trixie) lowest=6.12 below=6.13 ;;
	mainline) suites=(trixie-backports forky sid) lowest=7.2 below=99 ;;
	esac
	if [ -e "$known" ] && [ -n "$(find "$known" -mmin "-$kernel_fresh_minutes")" ]; then
		cat "$known"
		return
	fi
	for suite in "${suites[@]}"; do
		apt_private "$suite" || continue
		found=$(newest_image "$lowest" "$below")
		[ -z "$found" ] || break
	done
	if [ -n "${found:-}" ]; then
		mkdir -p "${known%/*}"
		# shellcheck disable=SC2086  # name and version
		fetch_kernel $found >"$known.new"
		mv "$known.new" "$known"
	elif [ ! -e "$known" ]; then
		echo "tests/vm: no kernel package >= $lowest in ${suites[*]} of the configured mirrors" >&2
		return 1
	else
		echo "tests/vm: no mirror answers, using the last kernel found" >&2
	fi
	cat "$known"
}
