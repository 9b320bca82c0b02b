#!/bin/bash
# SPDX-License-Identifier: MIT
# The guest's file system, as cpio archives that the kernel unpacks one after the other. Sourced by
# run.sh, which sets vm_dir (this folder), vm_cache and tmp.

# What every guest has. A program the host lacks is an error: a test must not find out later.
guest_programs=(
	bash dash busybox jq setsid flock timeout openssl pkill
	nbdkit qemu-nbd qemu-img nbd-client nbd-server nbdinfo nbdcopy fio
	mkfs.ext4 e2fsck resize2fs mkfs.xfs xfs_repair xfs_io
	blkdiscard blockdev sfdisk partx wipefs lsblk fallocate setpriv mount umount losetup
	dd cmp stat truncate sha256sum mktemp seq date cp tail sort od prlimit
	modprobe insmod rmmod tc ss ip tcpdump
)

# What a guest with little memory has, whose root is in that memory.
small_programs=(
	bash dash busybox jq setsid timeout mkfs.ext4 mount umount dd cmp seq stat mktemp modprobe ip ss
)

# Links of the nbdkit package to programs that would bloat the image (icu, curl, ssh) stay out.
nbdkit_plugins=(data eval file full info memory null pattern random sh sparse-random split zero)

# stage_file ROOT PATH [DEST]: copies one file; links on the way are followed, so that it is real.
stage_file() {
	local dest="$1${3:-$2}"

	[ ! -e "$dest" ] || return 0
	mkdir -p "${dest%/*}"
	cp -L -- "$2" "$dest"
}

# stage_libraries ROOT FILE: the shared objects a program or plugin is linked with.
stage_libraries() {
	local root=$1 lib

	while read -r lib; do
		stage_file "$root" "$lib"
	done < <(ldd "$2" 2>/dev/null | sed -n 's/^[^/]*\(\/[^ ]*\) (0x[0-9a-f]*)$/\1/p')
}

stage_program() {
	local root=$1 path

	path=$(PATH="$PATH:/usr/sbin:/sbin" type -P "$2") || {
		echo "tests/vm: $2 is not installed: run deploy/install-deps.sh" >&2
		return 1
	}
	stage_file "$root" "$path" "${3:-/usr/bin/${2##*/}}"
	stage_libraries "$root" "$path"
}

stage_skeleton() {
	mkdir -p "$1"/{dev,proc,sys,run,tmp,mnt,root,gk,etc,var,usr/bin,usr/lib,usr/lib64,usr/local/bin}
	ln -s usr/bin "$1/bin"
	ln -s usr/bin "$1/sbin"
	ln -s bin "$1/usr/sbin"
	ln -s usr/lib "$1/lib"
	ln -s usr/lib64 "$1/lib64"
	ln -s ../run "$1/var/run"
	ln -s ../tmp "$1/var/tmp"
}

# pack ROOT: the archive of a folder on stdout, everything owned by root.
pack() {
	(cd "$1" && find . -mindepth 1 -print0 | sort -z | cpio -0 -o -H newc -R 0:0 --quiet)
}

# stage_machine ROOT PROGRAM...: what init needs, and these programs.
stage_machine() {
	local root=$1 program path applet
	shift

	stage_skeleton "$root"
	for program; do
		stage_program "$root" "$program"
	done
	ln -s dash "$root/usr/bin/sh"

	while read -r applet; do
		[ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
	done < <(busybox --list)

	for path in /etc/mke2fs.conf /etc/ssl/openssl.cnf; do
		stage_file "$root" "$path"
	done
	echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
	echo 'nobody:x:65534:65534:nobody:/:/bin/false' >>"$root/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
	printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
	echo 'hosts: files' >"$root/etc/nsswitch.conf"
	cp "$vm_dir/init" "$root/init"
	chmod 755 "$root/init"
}

build_small() {
	stage_machine "$1" "${small_programs[@]}"
}

build_base() {
	local root=$1 path libdir

	stage_machine "$root" "${guest_programs[@]}"
	libdir=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
	for program in "${nbdkit_plugins[@]}"; do
		path=$libdir/nbdkit-$program-plugin.so
		stage_file "$root" "$path"
		stage_libraries "$root" "$path"
	done
	libdir=$(nbdkit --dump-config | sed -n 's/^filterdir=//p')
	for path in "$libdir"/*.so; do
		stage_file "$root" "$path"
		stage_libraries "$root" "$path"
	done
}

# cached NAME BUILD...: the archive NAME of the cache, built by "BUILD... FOLDER" when it is missing.
cached() {
	local archive=$vm_cache/images/$1.cpio root=$tmp/$1
	shift

	if [ ! -e "$archive" ]; then
		mkdir -p "${archive%/*}" "$root"
		find "${archive%/*}" -type f -mtime +1 -delete
		"$@" "$root"
		pack "$root" >"$archive.new"
		mv "$archive.new" "$archive"
		rm -rf "$root"
	fi
	touch "$archive"
	echo "$archive"
}

# The base image is as old as its recipe and the packages on this machine (ldconfig runs with most
# changes of libraries, dpkg's status with all). base_image base|small
base_image() {
	local key

	key=$({
		cat "$vm_dir/image.sh" "$vm_dir/init"
		stat -c '%n %Y %s' /etc/ld.so.cache /var/lib/dpkg/status
	} | sha256sum | cut -c1-16)
	cached "$1-$key" "build_$1"
}

# What tests may load. Names that a kernel has built in, or lacks, are left to the test to miss.
guest_modules=(
	virtio_pci virtio_blk ext4 ublk_drv nbd tls xfs btrfs loop null_blk brd dm-flakey dm-delay virtio_console
	virtio_net vsock_loopback tcp_diag sch_netem sch_tbf aesni_intel ghash_clmulni_intel crc32c_intel libcrc32c
	overlay
)

build_modules() {
	local dir=$1 root=$2 release module path dest

	release=$(ls "$dir/lib/modules")
	for module in "${guest_modules[@]}"; do
		modprobe -d "$dir" -S "$release" --show-depends "$module" 2>/dev/null || true
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r path; do
		dest=$root/usr/${path#"$dir"/}
		mkdir -p "${dest%/*}"
		case $path in
		*.xz) xz -dc "$path" >"${dest%.xz}" ;;
		*.zst) zstd -qdc "$path" >"${dest%.zst}" ;;
		*) cp "$path" "$dest" ;;
		esac
	done
	cp "$dir/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} "$root/usr/lib/modules/$release/"
	ln -s usr/lib "$root/lib"
	depmod -b "$root" "$release"
	rm "$root/lib"
}

# modules_image KERNEL_DIR: the archive with the modules of KERNEL_DIR/lib/modules.
modules_image() {
	local key

	key=$({
		cat "$vm_dir/image.sh"
		echo "$1"
		stat -c '%Y' "$1"/lib/modules/*
	} | sha256sum | cut -c1-16)
	cached "modules-$key" build_modules "$1"
}
