#!/bin/bash
# SPDX-License-Identifier: MIT
# In the guest of vm-container.sh: /dev/vda is the image's file system, /gk/config.json what its container gets.
for module in virtio_pci virtio_blk ext4; do
	modprobe "$module"
done
mount -o ro /dev/vda /mnt
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/gkproxy /run/data /bundle/bin
cat >/bundle/bin/gkproxy <<'END'
#!/bin/bash
# gkproxy, in the container: the daemon is its first process, all else joins it. CHANGES edits the container.
if [ "$1" != -c ]; then
	exec crun exec gkproxy /usr/sbin/gkproxy "$@"
fi
mkdir -p /bundle/run
major=$(awk '$2 == "ublk-char" { print $1 }' /proc/devices)
jq --arg conf "${2%/*}" --argjson major "$major" "
	.mounts += [{destination: \"/etc/gkproxy\", type: \"bind\", source: \$conf, options: [\"bind\", \"ro\"]}]
	| .linux.resources.devices |= map(if .major == -1 then .major = \$major else . end)
	| ${CHANGES:-.}" /gk/config.json | sed 's/"unlimited"/18446744073709551615/g' >/bundle/run/config.json
# The root of this guest is an initramfs, which pivot_root does not take.
exec crun run --no-pivot --bundle /bundle/run gkproxy
END
chmod +x /bundle/bin/gkproxy
# Where this guest has it, as lib/tls.sh says too.
export PATH=/bundle/bin:$PATH OPENSSL_CONF=/etc/ssl/openssl.cnf
. "$(dirname "$0")/../lib/functions.sh"
docs=/gk/deploy/doc
. "$(dirname "$0")/page.sh"

step "a server with TLS and a host, as deploy/doc says"
mkdir -p /etc/modules-load.d /srv/disks "$dir/certificates"
echo 127.0.0.1 store.example >>/etc/hosts
truncate -s 128M /srv/disks/vol0
cd "$dir/certificates"
follow container host
follow tls certificates
follow tls server
follow tls client
read -r -a serve < <(block tls "sh serve")
nbdkit_at -i 127.0.0.1 -- "${serve[@]:1}"
conf=/etc/gkproxy/proxy.conf
cat /gk/openssl.txt

step "the list is needed: without SYS_ADMIN, and with a profile that forbids io_uring, it is refused"
{ echo 'log_level = "error";' && block tls "conf vol0"; } >"$conf"
export CHANGES='.process.capabilities |= map_values(map(select(. != "CAP_SYS_ADMIN")))'
gkproxy_refuses 'permission|SYS_ADMIN'
export CHANGES='.linux.seccomp.syscalls[].names |= map(select(startswith("io_uring") | not))'
gkproxy_refuses 'io_uring|permi'
unset CHANGES

step "attach, format, mount, write"
block tls "conf vol0" >"$conf"
start_conf
device=$(status '.devices[0].path')
# Not gk-fence, which is the same program.
for pid in $(pidof gkproxy); do
	[ "$(cat "/proc/$pid/comm")" != gkproxy ] || break
done
same "$(sed -n 's/^CapBnd:\t//p' "/proc/$pid/status")" 0000000001200000 "capabilities, SYS_ADMIN and SYS_RESOURCE"
same "$(sed -n 's/^\(NoNewPrivs\|Seccomp\):\t//p' "/proc/$pid/status" | tr '\n' ' ')" "1 2 " "no new privileges, seccomp"
same "$(status '.devices[0].state')" up "state"
same "$(status '[.devices[0].connections[] | .tls + " " + .tls_version] | unique | join(", ")')" "ktls-both TLSv1.3" "TLS"
same "$(crun exec gkproxy /bin/sh -c 'dd if=/dev/vda of=/dev/null count=1 2>/dev/null && echo opened' || true)" "" \
	"a device that is not listed"
! grep -iE 'warning|denied|not permitted' "$log" || fail "something is missing in the container"
mkfs.ext4 -q "$device"
mount "$device" /run/data
dd if=/dev/urandom of=/run/data/file bs=1M count=16 conv=fsync status=none
sum=$(sha256sum </run/data/file)
fio --name=direct --directory=/run/data --size=4m --rw=randrw --bs=16k --direct=1 --ioengine=libaio --iodepth=16 \
	--verify=crc32c --eta=never --output="$dir/fio.log" || fail "fio: $(cat "$dir/fio.log")"
umount /run/data

step "detach, attach again: everything is still there"
begun=$SECONDS
stop_gkproxy
# Ten seconds are what a server gets that does not answer: this one does.
[ $((SECONDS - begun)) -lt $((8 * ${GK_TIME_SCALE:-1})) ] || fail "the end took $((SECONDS - begun)) s: $(cat "$log")"
start_conf
device=$(status '.devices[0].path')
mount "$device" /run/data
same "$(sha256sum </run/data/file)" "$sum" "what was written"
umount /run/data
e2fsck -fn "$device" >"$dir/fsck.log" 2>&1 || fail "fsck: $(cat "$dir/fsck.log")"
stop_gkproxy
