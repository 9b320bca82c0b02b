#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: kernel/selftest/liburing.sh [STOCK PATCHED]
# liburing's own tests, from Debian's source package, on the test kernel without and with the series
# (built if no bzImage is given). Status 1 if a test that passes without it does not pass with it.
# GK_TEST_SECONDS bounds each test (60), GK_LIBURING chooses tests by patterns ("link*.t nop.t").
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
vm=$here/../../tests/vm/run.sh
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gkproxy/liburing
export GK_TEST_SECONDS=${GK_TEST_SECONDS:-60}
stock=${1:-$("$here/../build.sh" --stock-test | tail -n1)}
patched=${2:-$("$here/../build.sh" --test | tail -n1)}

# Debian's source package by apt, with lists of our own: nothing of the machine's set-up changes.
fetch_source()
{
	local dir=$1 keyring
	for keyring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[[ ! -e $keyring ]] || break
	done
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/source"
	# shellcheck disable=SC2016 # apt expands these
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
		sed -n 's/^Debian //p' | grep -v security | sort -u |
		sed "s,^\(.*\),deb-src [signed-by=$keyring] \1 main," >"$dir/sources.list"
	local options=(
		-o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=-
		-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root
	)
	apt-get "${options[@]}" -qq update
	(cd "$dir/source" && apt-get "${options[@]}" -qq source --download-only liburing)
	tar -xf "$dir"/source/liburing_*.orig.tar.gz -C "$dir/source" --strip-components=1
}

# A test that does not build with this compiler is left out on both kernels.
build_tests()
{
	local dir=$1
	(cd "$dir/source" && ./configure && make -C src -j"$(nproc)" &&
		make -C test -k -j"$(nproc)" LDFLAGS="-static -L../src/ -luring -lpthread") || true
	mkdir "$dir/tests"
	find "$dir/source/test" -name '*.t' -exec cp {} "$dir/tests/" \;
	strip "$dir"/tests/*.t
}

if [[ ! -e $cache/tests ]]; then
	new=$(mktemp -d)
	trap 'rm -rf "$new"' EXIT
	{
		fetch_source "$new"
		build_tests "$new"
	} >&2
	mkdir -p "$cache"
	cp -r "$new/tests" "$cache/tests.$$"
	mv -T "$cache/tests.$$" "$cache/tests"
fi

results=$(mktemp -d)
trap 'rm -rf "$results" ${new:+"$new"}' EXIT
cat >"$results/run" <<'END'
#!/bin/bash
# Prints "NAME pass|skip|fail" for each test.
cd /gk/liburing || exit 1
# shellcheck disable=SC2086 # a list of patterns
for test in ${GK_LIBURING:-*.t}; do
	status=0
	timeout -k 5 "$GK_TEST_SECONDS" "./$test" >/dev/null 2>&1 </dev/null || status=$?
	case $status in
	0) echo "$test pass" ;;
	77) echo "$test skip" ;;
	*) echo "$test fail" ;;
	esac
done
dmesg | grep -E 'WARNING:|BUG:|Oops|refcount_t:' | sed 's/^/kernel: /' || true
echo end
END
chmod +x "$results/run"

run_on()
{
	GK_BUILD=none "$vm" -k "$1" -t 7200 -f "$cache/tests:/gk/liburing" \
		-f "$results/run:/gk/run-liburing" /gk/run-liburing
}

run_on "$stock" | tee "$results/stock" >&2
run_on "$patched" | tee "$results/patched" >&2
for kernel in stock patched; do
	[[ $(tail -n1 "$results/$kernel") == end ]] || {
		echo "liburing.sh: the run on $kernel did not reach its end" >&2
		exit 1
	}
	printf '%s: %d pass, %d skip, %d fail\n' "$kernel" \
		"$(grep -c ' pass$' "$results/$kernel")" "$(grep -c ' skip$' "$results/$kernel" || true)" \
		"$(grep -c ' fail$' "$results/$kernel" || true)"
done
worse=$(join <(sort "$results/stock") <(sort "$results/patched") | awk '$2 == "pass" && $3 != "pass"')
grep '^kernel: ' "$results/patched" && worse="${worse:+$worse$'\n'}the kernel complains"
if [[ -n $worse ]]; then
	printf 'worse with the series:\n%s\n' "$worse"
	exit 1
fi
