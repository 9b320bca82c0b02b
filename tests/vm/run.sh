#!/bin/bash
# SPDX-License-Identifier: MIT
# Boots a virtual machine and runs a command in it as root.
set -euo pipefail
shopt -s inherit_errexit

usage() {
	cat <<-'END'
	usage: tests/vm/run.sh [-k KERNEL] [-c CPUS] [-m MIB] [-t SECONDS] [-f SRC[:DEST]]...
	                       [-p PROGRAM]... [-d IMAGE] [-n IMAGE] [-s] [-b | -i] [-v] COMMAND...

	Boots a virtual machine, runs COMMAND (a shell command, as with ssh) in it as root in /gk, prints its
	output and exits with its status.

	  -k KERNEL     stock         Debian's 6.12 package (default)
	                mainline      Debian's newest package, at least 7.2
	                patched       6.12 with the series in kernel/patches
	                patched-debug the same with KASAN and lockdep
	                PATH          a bzImage; modules are taken from lib/modules beside it, if there
	  -c CPUS       default 2
	  -m MIB        memory, default 2048
	  -t SECONDS    time-out for boot and command together, default 600
	  -f SRC[:DEST] puts a file or folder into the guest, as DEST; a SRC inside the source tree goes to
	                the same place below /gk, any other to /gk/NAME, unless DEST says otherwise
	  -p PROGRAM    puts a program with its libraries into /usr/local/bin of the guest
	  -d IMAGE      a raw disk image as /dev/vda, which keeps what is written. An executable /gk/.pid1 (-f)
	                takes the place of init once the disk is there: it has /dev/ttyS1 for what it prints, must
	                write COMMAND's exit status to /dev/ttyS2 and reset the machine
	  -n IMAGE      a network, and on it, at 10.0.2.100, port 10809, an NBD server with this raw image, which
	                runs here: an nbdkit of its own for each connection
	  -s            a small root for a guest with little memory: the shell and what tests/e2e/small-*.sh need
	  -b            for benchmarks: software emulation does without the string instructions that it runs byte by
	                byte (ERMS), so that a copy is not many times as dear as on any real processor
	  -i            counts instructions: one CPU, whose clock advances by a nanosecond with each of them and
	                passes over idle time, so that a CPU time in the guest is a number of instructions; without
	                the string instructions that count every byte they copy as one. Slow
	  -v            shows the kernel's messages on stderr

	The guest has tests/e2e, tests/lib, deploy and gkproxy in it. gkproxy is taken from $GK_BUILD (default:
	build/ in the source tree), where it is brought up to date first; GK_BUILD=none leaves it out.
	Variables named GK_* are set in the guest as they are here.

	Exit status: COMMAND's; 124 the time was up, 125 the virtual machine failed (kernel
	panic, no boot, nothing to boot).
	END
}

vm_dir=$(dirname "$(realpath "$0")")
top=$(realpath "$vm_dir/../..")
vm_cache=${XDG_CACHE_HOME:-$HOME/.cache}/gkproxy
# shellcheck source=tests/vm/image.sh
. "$vm_dir/image.sh"
# shellcheck source=tests/vm/kernel.sh
. "$vm_dir/kernel.sh"

kernel=stock cpus=2 memory=2048 seconds=600 verbose= count= bench= root=base disk=() server=()
files=() programs=()
while getopts 'k:c:m:t:f:p:d:n:sbivh' option; do
	case $option in
	k) kernel=$OPTARG ;;
	c) cpus=$OPTARG ;;
	m) memory=$OPTARG ;;
	t) seconds=$OPTARG ;;
	f) files+=("$OPTARG") ;;
	p) programs+=("$OPTARG") ;;
	d) disk=(-drive "file=$OPTARG,format=raw,if=virtio,cache=unsafe") ;;
	b) bench=1 ;;
	n) server=("$(realpath "$OPTARG")") ;;
	s) root=small ;;
	i) count=1 ;;
	v) verbose=7 ;;
	h) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { usage >&2; exit 2; }

die() {
	echo "tests/vm: $*" >&2
	exit 125
}

# find_kernel: sets vmlinuz, and modules to the folder that holds lib/modules or to nothing.
find_kernel() {
	case $kernel in
	stock | mainline)
		modules=$(debian_kernel "$kernel")
		vmlinuz=$modules/vmlinuz
		;;
	patched | patched-debug)
		local build=$top/kernel/build.sh mode=--test

		[ -x "$build" ] || die "-k $kernel needs kernel/build.sh"
		[ "$kernel" = patched ] || mode=--debug
		vmlinuz=$("$build" "$mode" | tail -n1)
		modules=
		;;
	*)
		vmlinuz=$(realpath "$kernel")
		modules=${vmlinuz%/*}
		;;
	esac
	[ -f "$vmlinuz" ] || die "$kernel: there is no kernel image '$vmlinuz'"
	[ -d "$modules/lib/modules" ] || modules=
}

# build_gkproxy: prints the path of an up-to-date gkproxy.
build_gkproxy() {
	local build=${GK_BUILD:-$top/build} log=$tmp/build.log

	{
		[ -e "$build/Makefile" ] || [ -e "$build/build.ninja" ] || cmake -S "$top" -B "$build"
		cmake --build "$build" --target gkproxy -j "$(nproc)"
	} >"$log" 2>&1 || {
		tail -n 30 "$log" >&2
		die "gkproxy does not build in $build"
	}
	echo "$build/gkproxy"
}

# stage_given ROOT SRC[:DEST]
stage_given() {
	local src=${2%%:*} dest

	src=$(realpath "$src")
	case $2 in
	*:*) dest=${2#*:} ;;
	*) if [ "${src#"$top"/}" != "$src" ]; then dest=/gk/${src#"$top"/}; else dest=/gk/${src##*/}; fi ;;
	esac
	dest=$1/${dest#/}
	mkdir -p "${dest%/*}"
	cp -rL --preserve=mode,timestamps -T -- "$src" "$dest"
}

# build_run_image COMMAND...: what changes from run to run, as an archive on stdout.
build_run_image() {
	local root=$tmp/root item name

	mkdir -p "$root/usr/local/bin" "$root/gk"
	for item in tests/e2e tests/lib deploy; do
		[ ! -d "$top/$item" ] || stage_given "$root" "$top/$item"
	done
	if [ "${GK_BUILD:-}" != none ]; then
		item=$(build_gkproxy)
		programs+=("$item")
	fi
	for item in ${programs[@]+"${programs[@]}"}; do
		stage_program "$root" "$item" "/usr/local/bin/${item##*/}"
	done
	for item in ${files[@]+"${files[@]}"}; do
		stage_given "$root" "$item"
	done
	for name in "${!GK_@}"; do
		[ "$name" = GK_BUILD ] || printf 'export %s=%q\n' "$name" "${!name}"
	done >"$root/gk/.command"
	printf '%s\n' "$*" >>"$root/gk/.command"
	# Folders that the base image has as links: the kernel would put real ones in their place.
	for item in lib lib64 bin sbin; do
		[ ! -d "$root/$item" ] || {
			mkdir -p "$root/usr/$item"
			cp -r "$root/$item/." "$root/usr/$item"
			rm -rf "${root:?}/$item"
		}
	done
	pack "$root"
}

# Saves three seconds of self-tests and of what no test looks at.
quick_boot='cryptomgr.notests mitigations=off nokaslr no_timer_check apparmor=0 audit=0'

# serve IMAGE: prints the options of a network that has nothing but its server. QEMU splits at commas and blanks.
serve() {
	printf '#!/bin/sh\nexec nbdkit -s file %q 2>>%q\n' "$1" "$tmp/nbdkit.log" >"$tmp/server"
	chmod 755 "$tmp/server"
	echo "user,model=virtio-net-pci,restrict=on,guestfwd=tcp:10.0.2.100:10809-cmd:$tmp/server"
}

# boot ACCELERATION CONSOLE OUTPUT STATUS SECONDS: runs the machine to its end. ACCELERATION may be count.
boot() {
	local machine=(-accel "$1" -cpu max -smp "$cpus")

	[ -z "$bench" ] || [ "$1" = kvm ] || machine=(-accel "$1" -cpu max,-erms -smp "$cpus")
	[ "$1" != count ] || machine=(-accel tcg,thread=single -icount shift=0,sleep=off -cpu max,-erms -smp 1)
	timeout -k 5 "$5" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
		-machine q35 "${machine[@]}" -m "$memory" -nic "$nic" \
		-kernel "$vmlinuz" -initrd "$tmp/initrd" ${disk[@]+"${disk[@]}"} \
		-append "console=ttyS0 loglevel=${verbose:-4} panic=-1 oops=panic $quick_boot" \
		-serial "file:$2" -serial "file:$3" -serial "file:$4" </dev/null 2>"$tmp/qemu.log" &
	qemu_pid=$!
	wait "$qemu_pid"
}

# pick_acceleration: prints the argument of -accel. Hardware is trusted only after a guest reached user
# space under it; the answer is kept for this machine and kernel.
pick_acceleration() {
	local known

	known=$vm_cache/accel-$({ uname -nrv; qemu-system-x86_64 --version; } | sha256sum | cut -c1-16)
	if [ ! -e "$known" ]; then
		if [ -w /dev/kvm ] &&
		   boot kvm /dev/null /dev/null "$tmp/probe" 20 &&
		   [ -s "$tmp/probe" ]; then
			echo kvm >"$known"
		else
			echo tcg,thread=multi >"$known"
		fi
	fi
	cat "$known"
}

tmp=$(mktemp -d "${TMPDIR:-/tmp}/gkproxy-vm.XXXXXX")
qemu_pid=
prepared=
nic=none
stop() {
	local status=$?

	[ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true
	rm -rf "$tmp"
	[ -n "$prepared" ] || [ "$status" -ge 125 ] || exit 125
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$vm_cache"
# Several runs may start at once: one prepares, the others wait and find it done.
exec 9>"$vm_cache/lock"
case $kernel in
stock | mainline) flock 9; find_kernel ;;
*) find_kernel; flock 9 ;;
esac
base=$(base_image "$root")
build_run_image "$@" >"$tmp/run.cpio"
images=("$base")
if [ -n "$modules" ]; then
	module_image=$(modules_image "$modules")
	images+=("$module_image")
fi
cat "${images[@]}" "$tmp/run.cpio" >"$tmp/initrd"
if [ -n "$count" ]; then acceleration=count; else acceleration=$(pick_acceleration); fi
exec 9>&-

[ ${#server[@]} = 0 ] || nic=$(serve "${server[0]}")
prepared=1
# QEMU would truncate a file: it gets pipes. This script holds them open until QEMU is gone: one that fails before
# it opens them would leave their readers waiting for ever.
mkfifo "$tmp/output" "$tmp/messages"
exec 7<>"$tmp/output" 8<>"$tmp/messages" 5<"$tmp/output" 6<"$tmp/messages"
cat <&5 5<&- 6<&- 7>&- 8>&- &
readers=($!)
if [ -n "$verbose" ]; then
	tee "$tmp/console" <&6 >&2 5<&- 6<&- 7>&- 8>&- &
else
	cat <&6 >"$tmp/console" 5<&- 6<&- 7>&- 8>&- &
fi
readers+=($!)
exec 5<&- 6<&-
status=0
boot "$acceleration" "$tmp/messages" "$tmp/output" "$tmp/status" "$seconds" 7>&- 8>&- || status=$?
qemu_pid=
exec 7>&- 8>&-
wait "${readers[@]}"

if [ "$status" = 124 ]; then
	echo "tests/vm: the $seconds seconds were up" >&2
	[ -n "$verbose" ] || tail -n 40 "$tmp/console" >&2
	exit 124
fi
if [ ! -s "$tmp/status" ]; then
	[ -n "$verbose" ] || tail -n 60 "$tmp/console" >&2
	cat "$tmp/qemu.log" >&2
	if grep -q 'Kernel panic' "$tmp/console"; then
		die "the kernel panicked"
	fi
	die "the guest ended without a result (qemu: exit status $status)"
fi
exit "$(cat "$tmp/status")"
