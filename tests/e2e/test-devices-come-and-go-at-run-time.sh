#!/bin/bash
# SPDX-License-Identifier: MIT
# attach, detach, reload and log-level of a running daemon, with one device at work all the time.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/survive.sh"

# refused REGEX COMMAND...: fails with one line that matches.
refused() {
	local regex=$1
	shift

	! "$@" >"$dir/out" 2>"$dir/err" || fail "$* succeeded"
	same "$(grep -c . "$dir/err")" 1 "number of lines in '$(cat "$dir/err")'"
	grep -qiE -- "$regex" "$dir/err" || fail "the message does not match '$regex': $(cat "$dir/err")"
	echo "   it says: $(cat "$dir/err")"
}

devices() {
	status '.devices | map(.name + " " + .state) | sort | join(", ")'
}

nbdkit_unix memory 64M
{
	echo "control = { metrics = \"127.0.0.1:9105\"; };"
	echo "defaults = { queue_depth = 32; };"
	echo "devices = ( { name = \"vol0\"; id = 0; remote = \"$uri\"; } );"
} >"$conf"
start_conf
exec 6<"$device"
work() { fio_verify work --size=8m >/dev/null; }
keep_working work
at_work() { [ "$(status '.devices[0].recent.writes_per_s // 0 | floor')" -gt 0 ]; }
wait_for 60 "vol0 is at work" at_work
# The others have a server of their own.
vol0_uri=$uri
nbdkit_tcp memory 64M

step "attach"
path=$(gkproxy attach "$uri" --name two --queue-depth 16)
[ -b "$path" ] || fail "there is no $path"
same "$(status '.devices[] | select(.name == "two") | "\(.queue_depth) \(.origin) \(.path)"')" "16 request $path" two
dd if=/dev/urandom of="$path" bs=1M count=4 oflag=direct status=none
same "$(gkproxy attach "$uri" --json | jq -r .name)" vol1 "name that was chosen"
same "$(status '.devices[] | select(.name == "vol1").queue_depth')" 32 "queue_depth by the file's defaults"
refused 'named two already' gkproxy attach "$uri" --name two
refused 'queue_depth: expected a whole number' gkproxy attach "$uri" --queue_depth 0
refused 'nonsense: unknown key' gkproxy attach "$uri" --nonsense 1
refused 'nowhere.sock' gkproxy attach 'nbd+unix:///?socket=/nowhere.sock'
same "$(devices)" "two up, vol0 up, vol1 up" devices

step "detach"
gkproxy detach vol1
refused 'no device is named vol1' gkproxy detach vol1
refused 'open in process [0-9]+ \((fio|bash)\)' gkproxy detach vol0
mkfs.ext4 -q "$path"
mkdir -p /mnt
mount "$path" /mnt
refused "two: $path is mounted at /mnt" gkproxy detach two
umount /mnt
gkproxy detach two
[ ! -e "$path" ] || fail "$path is still there"

step "reload: new ones come, old ones go, others are left alone, mistakes change nothing"
{
	echo "devices = ( { name = \"vol0\"; id = 0; remote = \"$vol0_uri\"; queue_depth = 64; },"
	echo "  { name = \"three\"; id = 3; remote = \"$uri\"; } );"
} >"$conf"
gkproxy attach "$uri" --name extra >/dev/null
refused 'vol0 is left as it is: queue_depth is 32 and would be 64' gkproxy reload
same "$(devices)" "extra up, three up, vol0 up" "devices after the reload"
sed -i 's/queue_depth = 64/queue_depth = 0; nonsense = 1/' "$conf"
before=$(devices)
! gkproxy reload 2>"$dir/err" || fail "a file with mistakes was taken"
grep -q '2 mistakes' "$dir/err" && grep -q 'queue_depth: expected' "$dir/err" && grep -q 'nonsense: unknown' "$dir/err" ||
	fail "not every mistake is named: $(cat "$dir/err")"
same "$(devices)" "$before" "devices after the mistakes"
uri=$vol0_uri one_device queue_depth=32
kill -HUP "$gkproxy_pid"
two_left() { [ "$(devices)" = "extra up, vol0 up" ]; }
wait_for 60 "SIGHUP detaches the third device" two_left
gkproxy detach extra

step "a hundred clients at once, slow and deaf ones among them, while vol0 is at work"
before=$(counter 'reads + .writes')
control_crowd
wait_for 30 "vol0 works on" more_than "$((before + 50))" 'reads + .writes'
same "$(counter errors)" 0 errors

step "log-level"
same "$(gkproxy log-level)" info "log level"
same "$(gkproxy log-level debug)" debug "log level"
gkproxy log-level info >/dev/null
refused 'level: expected' gkproxy log-level loud

step "metrics and status agree with what the device did"
enough
exec 6<&-
scrape() {
	exec 5<>/dev/tcp/127.0.0.1/9105
	printf 'GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n' >&5
	cat <&5 >"$dir/metrics"
	exec 5<&-
}
metric() {
	sed -nE "s/^gkproxy_$1\{device=\"vol0\"(,op=\"write\")?\} //p" "$dir/metrics"
}
scrape
before_writes=$(metric requests_total)
before_bytes=$(metric written_bytes_total)
fio --name=count --filename="$device" --ioengine=libaio --direct=1 --iodepth=8 --rw=write --bs=64k --size=8m \
	--rate_iops=64 --eta=never --output="$dir/count.log" --output-format=json &
fio_pid=$!
last=$before_writes between=0
until gone "$fio_pid"; do
	scrape
	now=$(metric requests_total)
	[ "$now" -ge "$last" ] || fail "the count of writes went from $last to $now"
	[ "$now" -le "$before_writes" ] || [ "$now" -ge "$((before_writes + 128))" ] || between=1
	last=$now
done
wait "$fio_pid"
same "$between" 1 "metrics were seen on their way"
scrape
after_writes=$(metric requests_total)
same "$((after_writes - before_writes))" "$(jq '.jobs[0].write.total_ios' "$dir/count.log")" "writes"
same "$(($(metric written_bytes_total) - before_bytes))" $((8 << 20)) "bytes written"
same "$(status '.devices[0].counters | "\(.writes) \(.bytes_written)"')" "$after_writes $(metric written_bytes_total)" "status"
grep -qx "gkproxy_requests_total{device=\"vol0\",op=\"write\"} $after_writes" "$dir/metrics" ||
	fail "metrics differ: $(grep requests_total "$dir/metrics")"
grep -qx "gkproxy_request_duration_seconds_count{device=\"vol0\",op=\"write\"} $after_writes" "$dir/metrics"
timeout 5 gkproxy status --watch=0.2 >"$dir/watch" || true
[ "$(grep -c '^vol0 .* up' "$dir/watch")" -gt 2 ] || fail "the live table: $(cat "$dir/watch")"

step "what it does not need, it has given up"
caps=$(awk '/^Cap(Prm|Eff|Bnd|Amb)/ { print $2 }' "/proc/$gkproxy_pid/status" | sort -u | tr '\n' ' ')
same "$caps" "0000000000000000 0000000001284002 " "capabilities"
same "$(awk '/^NoNewPrivs/ { print $2 }' "/proc/$gkproxy_pid/status")" 1 no_new_privs
same "$(gkproxy probe --json | jq -r '.capabilities | map(.available) | unique | join(" ")')" true "capabilities here"
