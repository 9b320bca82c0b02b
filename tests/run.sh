#!/bin/bash
# SPDX-License-Identifier: MIT
# Installs what is needed, builds, and runs the tests. The last line is "N passed, N failed, N skipped".
set -euo pipefail

usage() {
	cat <<-'END'
	usage: tests/run.sh [unit | wire | fuzz | vm | deploy | all | docker | soak | chaos] [TEST...]
	  unit   unit tests: built by gcc and clang, and by gcc with the address and undefined sanitizers
	  wire   wire tests: the same, and with the thread sanitizer
	  fuzz   libFuzzer on every parser, a minute each (GK_FUZZ_SECONDS)
	  vm     end-to-end tests in virtual machines with Debian's 6.12 kernel, its newest, and 6.12 with
	         the series in kernel/patches; self-tests of that series
	  deploy packages and container image are built, and used in virtual machines: the package on Debian 12 and
	         13 with systemd, the main job from inside a container; needs root, or sudo
	  all    all of these (default)
	  docker the image is run by Docker with compose.yml, in a virtual machine with systemd, for two boots
	  soak   ten minutes of verified writes (GK_SOAK_SECONDS) on each kernel, as long again over TLS by
	         the kernel, and over TLS in user space
	  chaos  ten minutes of faults in random order on each (GK_CHAOS_SECONDS, GK_CHAOS_SEED)
	TEST: names of end-to-end tests, with vm, instead of all.
	What a test printed is kept in build-tests/logs. GK_KERNELS="stock ..." picks other kernels.
	END
}

top=$(dirname "$(dirname "$(realpath "$0")")")
builds=${GK_TEST_BUILDS:-$top/build-tests}
logs=$builds/logs
passed=0 failed=0 skipped=0 failures=()
pooled= # set within a job of side_by_side

# outcome passed|failed|skipped NAME SECONDS [LOG]
outcome() {
	[ -z "$pooled" ] || {
		printf '%s\t' "$@" && echo
		return
	}
	printf '%-7s %s (%s s)\n' "$1" "$2" "$3"
	case $1 in
	passed) passed=$((passed + 1)) ;;
	skipped) skipped=$((skipped + 1)) ;;
	failed)
		failed=$((failed + 1))
		failures+=("$2")
		[ -z "${4:-}" ] || {
			echo "------- the end of ${4#"$top/"}:"
			tail -n "${GK_LOG_LINES:-30}" "$4" | sed 's/^/        /'
			echo "-------"
		}
		;;
	esac
}

# run_step NAME COMMAND...: a test that is one command, its output in a log.
run_step() {
	local name=$1 log=$logs/${1//[^a-zA-Z0-9.]/-}.log start=$SECONDS result=passed
	shift

	"$@" >"$log" 2>&1 </dev/null || result=failed
	outcome "$result" "$name" $((SECONDS - start)) "$log"
	[ "$result" = passed ]
}

# totals PASSED FAILED SKIPPED: of a runner that counts by itself.
totals() {
	[ -z "$pooled" ] || {
		printf 'totals\t%s\n' "$*"
		return
	}
	echo "        $1 passed, $2 failed, $3 skipped"
	passed=$((passed + $1))
	failed=$((failed + $2))
	skipped=$((skipped + $3))
}

# side_by_side JOB...: runs these functions, with their arguments, as many at a time as there are processors: under
# software emulation a guest keeps one busy, and most jobs are guests.
side_by_side() {
	local job result name seconds log

	exec 3< <(
		trap 'kill $(jobs -p)' TERM
		pooled=1
		for job; do
			[ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n || true
			$job &
		done
		wait
	)
	pool=$!
	while IFS=$'\t' read -r result name seconds log; do
		if [ "$result" = totals ]; then
			# shellcheck disable=SC2086 # three numbers
			totals $name
		else
			outcome "$result" "$name" "$seconds" "$log"
		fi
	done <&3
	exec 3<&-
	pool=
}

# configure_and_build NAME CMAKE-OPTIONS...
configure_and_build() {
	local dir=$builds/$1
	shift

	cmake -S "$top" -B "$dir" "$@"
	cmake --build "$dir" -j "$(nproc)" ${target:+--target "$target"}
}

build() {
	local options=(-DGK_WERROR=ON) target=

	case $1 in
	fuzz) options+=(-DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGK_FUZZ=ON) target=fuzzers ;;
	gcc) options+=(-DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo) ;;
	clang) options+=(-DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo) ;;
	asan) options+=(-DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug "-DGK_SANITIZE=address,undefined") ;;
	tsan) options+=(-DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug -DGK_SANITIZE=thread) ;;
	esac
	run_step "build with $1" configure_and_build "$1" "${options[@]}"
}

# The thread sanitizer cannot live with as much address randomisation as some kernels do.
without_randomisation() {
	if setarch "$(uname -m)" -R true 2>/dev/null; then
		setarch "$(uname -m)" -R "$@"
	else
		"$@"
	fi
}

# run_ctest BUILD CTEST-OPTIONS...: counts every test that ctest runs in that build.
run_ctest() {
	local build=$1 log=$logs/ctest-$1.log number name result seconds found=
	shift

	without_randomisation ctest --test-dir "$builds/$build" --output-on-failure --timeout 120 \
		-j "$(nproc)" -L unit "$@" >"$log" 2>&1 </dev/null || true
	while read -r number name result seconds; do
		found=1
		case $result in
		Passed) result=passed ;;
		Skipped) result=skipped ;;
		*) result=failed ;;
		esac
		# What a test printed follows its result, up to the start of the next one.
		[ "$result" != failed ] ||
			sed -n "/ Test *#$number: /,/^ *Start /p" "$log" >"$logs/$build-$name.log"
		outcome "$result" "$build: $name" "$seconds" "$logs/$build-$name.log"
	done < <(sed -nE 's/^ *[0-9]+\/[0-9]+ Test +#([0-9]+): ([^ ]+) \.*(\*\*\*)? *([A-Za-z]+).* ([0-9.]+) sec.*/\1 \2 \4 \5/p' "$log")
	[ -n "$found" ] || outcome failed "$build: no test ran" 0 "$log"
}

# native unit|wire|all
native() {
	local select=() build

	case $1 in
	unit) select=(-E '^test_wire_') ;;
	wire) select=(-R '^test_wire_') ;;
	esac
	for build in gcc clang asan; do
		! build "$build" || run_ctest "$build" "${select[@]}"
	done
	[ "$1" = wire ] || run_step "promtool finds the metrics right" "$top/tests/promtool.sh" "$builds/gcc" || true
	[ "$1" = wire ] || run_step "valgrind finds nothing wrong" "$top/tests/valgrind.sh" "$builds/gcc" || true
	[ "$1" = unit ] || ! build tsan || run_ctest tsan -R '^test_wire_|^test_daemon$'
}

# fuzz NAME: what it finds on the way to new code stays in the build folder.
fuzz() {
	local name=$1 log=$logs/$1.log start=$SECONDS result=failed

	mkdir -p "$builds/fuzz/found/$name"
	! "$builds/fuzz/tests/fuzz/$name" -max_total_time="${GK_FUZZ_SECONDS:-60}" -timeout=10 -artifact_prefix="$logs/$name-" \
		"$builds/fuzz/found/$name" "$top/tests/fuzz/corpus/${name#fuzz_}" >"$log" 2>&1 ||
		! grep -q '^#[0-9]\{3,\}.*DONE' "$log" || result=passed
	outcome "$result" "$name" $((SECONDS - start)) "$log"
}

fuzz_all() {
	local programs

	build fuzz || return 0
	programs=("$builds"/fuzz/tests/fuzz/fuzz_*)
	programs=("${programs[@]##*/}")
	side_by_side "${programs[@]/#/fuzz }"
}

# e2e_on KERNEL: runs $tests in guests with that kernel, most of them in one. A test in whose guest the machine
# died has failed; the tests after it get a new guest, as they do when a test left something behind.
e2e_on() {
	local kernel=$1 output status line name='' result milliseconds begun log left limit

	mapfile -t left < <(belonging_to "$kernel" "${tests[@]}")
	set -- "${left[@]}"

	# KASAN and lockdep under software emulation take several times as long.
	[ "$kernel" != patched-debug ] || export GK_TIME_SCALE=${GK_TIME_SCALE:-6}
	limit=${GK_GUEST_TIMEOUT:-$((3600 * ${GK_TIME_SCALE:-1}))}
	while [ ${#left[@]} -gt 0 ]; do
		output=$logs/guest-$kernel-${left[0]}.log
		name='' begun=$SECONDS status=0
		while IFS= read -r line; do
			case $line in
			'@@ begin '*)
				name=${line#@@ begin }
				log=$logs/$kernel-$name.log
				begun=$SECONDS
				: >"$log"
				;;
			'@@ end '*)
				read -r _ _ name status milliseconds <<<"$line"
				result=failed
				if [ "$status" = 0 ]; then
					result=passed
				else
					echo "exit status $status" >>"$log"
				fi
				outcome "$result" "$kernel: $name" "$((milliseconds / 1000)).$((milliseconds % 1000 / 100))" "$log"
				left=("${left[@]:1}")
				name=
				;;
			*) [ -z "$name" ] || printf '%s\n' "$line" >>"$log" ;;
			esac
		done < <("$top/tests/vm/run.sh" -k "$kernel" -t "$limit" -p "$GK_BUILD/tests/ktls_records" \
			-p "$GK_BUILD/tests/evil_device" -p "$GK_BUILD/tests/stale_writes" \
			-p "$GK_BUILD/tests/control_crowd" bash tests/e2e/guest.sh "${left[@]}" 2>"$output" </dev/null)
		if [ -n "$name" ]; then
			cat "$output" >>"$log"
			outcome failed "$kernel: $name" $((SECONDS - begun)) "$log"
			left=("${left[@]:1}")
		elif [ ${#left[@]} -eq $# ]; then
			for name in "${left[@]}"; do
				outcome failed "$kernel: $name" 0 "$output"
			done
			return
		fi
		set -- "${left[@]}"
	done
}

# belonging_to KERNEL TEST...: without the tests of other kernels, which are named test-on-KERNEL-...
belonging_to() {
	local kernel=${1%-debug} name
	shift

	for name; do
		[[ $name == test-on-* && $name != "test-on-$kernel-"* ]] || echo "$name"
	done
}

# end_to_end JOB...: $tests on every kernel, and the jobs.
end_to_end() {
	local kernels kernel ready=()

	read -r -a kernels <<<"${GK_KERNELS:-stock mainline patched}"
	export GK_BUILD=$builds/gcc
	# Downloads and builds of kernels happen here, one after the other.
	for kernel in "${kernels[@]}"; do
		! run_step "$kernel: a guest boots" "$top/tests/vm/run.sh" -k "$kernel" -t 180 \
			gkproxy --version || ready+=("$kernel")
	done
	side_by_side "${ready[@]/#/e2e_on }" "$@"
}

# Wants guests of its own, with other kernels in GK_SMALL_KERNELS.
small_memory() {
	local kernel

	for kernel in ${GK_SMALL_KERNELS:-stock}; do
		run_step "$kernel: 256 MiB of memory, four times as much written" "$top/tests/vm/small-memory.sh" "$kernel" || true
	done
}

# The kernel series' own tests count one by one; their runner says how many there were. The stress test runs
# for a part of its 100,000 rounds.
kernel_series() {
	local runner=$top/kernel/selftest/vm.sh log line

	[ -x "$runner" ] || return 0
	run_step "the kernel series compiles with Debian's full configuration" "$top/kernel/build.sh" --check || true
	export GK_STRESS_ROUNDS=${GK_STRESS_ROUNDS:-2000}
	run_step "patched: the self-tests of the kernel series run to their end" "$runner" || return 0
	log=$logs/patched--the-self-tests-of-the-kernel-series-run-to-their-end.log
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n1) || true
	if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
		totals "${BASH_REMATCH[@]:1}"
	else
		outcome failed "patched: the self-tests say how many passed" 0 "$log"
	fi
}

# deploy_step NAME SCRIPT ARGS...: a script of tests/deploy as root. What root put into the cache must not be in
# this user's way.
deploy_step() {
	local name=$1 script=$top/tests/deploy/$2 as_root=() cache=${XDG_CACHE_HOME:-$HOME/.cache}/gkproxy
	shift 2

	[ "$(id -u)" = 0 ] || as_root=(sudo -E)
	run_step "$name" "${as_root[@]}" "$script" "$@" || true
	[ "$(id -u)" = 0 ] || sudo chown -R --from=root "$(id -u):$(id -g)" "$cache"
}

deploy() {
	deploy_step "deploy: the package on Debian 12 with systemd" vm-systemd.sh bookworm
	deploy_step "deploy: the package on Debian 13 with systemd" vm-systemd.sh trixie
	deploy_step "deploy: the main job in a container" vm-container.sh
	deploy_step "deploy: Kubernetes understands daemonset.yml" kubernetes.sh
}

mode=${1:-all}
[ $# = 0 ] || shift
case $mode in
unit | wire | fuzz | deploy | all | docker | soak | chaos) [ $# = 0 ] || { usage >&2; exit 2; } ;;
vm) ;;
-h | --help) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

mkdir -p "$logs"
find "$logs" -name '*.log' -delete
pool=
trap '[ -z "$pool" ] || kill "$pool"' EXIT
trap 'exit 130' INT TERM
run_step "install what is needed" "$top/deploy/install-deps.sh" || mode=none

case $mode in
unit | wire | all) native "$mode" ;;
esac
case $mode in
fuzz | all) fuzz_all ;;
esac
case $mode in
vm | all)
	tests=("$@")
	if [ $# = 0 ]; then
		for file in "$top"/tests/e2e/test-*.sh; do
			file=${file##*/}
			tests+=("${file%.sh}")
		done
	fi
	# The longest jobs first.
	case $mode:$# in
	all:*) end_to_end deploy small_memory kernel_series ;;
	vm:0) ! build gcc || end_to_end small_memory kernel_series ;;
	*) ! build gcc || end_to_end ;;
	esac
	;;
deploy) deploy ;;
docker) deploy_step "Docker runs compose.yml" vm-docker.sh ;;
soak)
	export GK_TEST_TIMEOUT=$((${GK_SOAK_SECONDS:-600} + 300)) GK_GUEST_TIMEOUT=$((3 * ${GK_SOAK_SECONDS:-600} + 600))
	tests=(soak soak-ktls soak-tls)
	! build gcc || end_to_end
	;;
chaos)
	export GK_TEST_TIMEOUT=$((${GK_CHAOS_SECONDS:-600} + 600)) GK_GUEST_TIMEOUT=$((${GK_CHAOS_SECONDS:-600} + 700))
	tests=(chaos)
	! build gcc || end_to_end
	;;
esac

[ ${#failures[@]} = 0 ] || {
	echo "failed:"
	printf '        %s\n' "${failures[@]}"
}
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
