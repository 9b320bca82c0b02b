#!/bin/bash
# SPDX-License-Identifier: MIT
# qemu-nbd's TLS with certificates and keys; and, beside gkproxy, nbd-client's and QEMU's on the same server.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/tls.sh"

# qemu_tls OBJECT: qemu-nbd on 127.0.0.1 with these credentials.
qemu_tls() {
	qemu-nbd --fork --persistent --pid-file "$dir/qemu.pid" -b 127.0.0.1 -p 10809 -f raw -e 4 \
		--object "$1" --tls-creds tls0 "$dir/disk"
	server_pid=$(cat "$dir/qemu.pid")
	server_pids+=("$server_pid")
}

truncate -s 4M "$dir/disk"
step "qemu-nbd with certificates"
qemu_tls "tls-creds-x509,id=tls0,dir=$dir/tls,endpoint=server,verify-peer=yes"
uri=nbds://localhost/
for ktls in auto off; do
	start_gkproxy "$(with_certs "ktls = \"$ktls\";")"
	tls_is "$([ "$ktls" = auto ] && echo "$full" || echo user)"
	fio_verify "qemu-x509-$ktls" --size=2m
	same_bytes "$device" "$dir/disk"
	stop_gkproxy
done

step "QEMU's own client reads the same"
mkdir "$dir/client"
cp "$pki/ca.pem" "$dir/client/ca-cert.pem"
cp "$pki/client.pem" "$dir/client/client-cert.pem"
cp "$pki/client.key" "$dir/client/client-key.pem"
qemu-img convert --object "tls-creds-x509,id=tls0,dir=$dir/client,endpoint=client" -O raw --image-opts \
	driver=nbd,host=localhost,port=10809,tls-creds=tls0 "$dir/copy"
same_bytes "$dir/copy" "$dir/disk"
stop_server

step "qemu-nbd with keys"
new_psk
mkdir "$dir/psk"
cp "$pki/psk" "$dir/psk/keys.psk"
qemu_tls "tls-creds-psk,id=tls0,dir=$dir/psk,endpoint=server"
uri=nbds://alice@localhost/
start_gkproxy "$(with_psk)"
tls_is "$full"
fio_verify qemu-psk --size=2m
same_bytes "$device" "$dir/disk"
stop_gkproxy
stop_server

# nbd.ko is in Debian's kernels only.
modprobe -q nbd || exit 0
step "nbd-client's TLS and ours on one nbdkit"
nbdkit_tls file "$dir/disk"
start_gkproxy "$(with_certs)"
nbd-client -L -N '' -certfile "$pki/client.pem" -keyfile "$pki/client.key" -cacertfile "$pki/ca.pem" \
	-tlshostname localhost 127.0.0.1 10809 /dev/nbd0
fio_verify beside-nbd-client --size=2m
dd if="$dir/copy" of="$device" bs=1M oflag=direct conv=fsync status=none
# Not what its page cache kept of the time before.
dd if=/dev/nbd0 of="$dir/through-nbd" bs=1M iflag=direct status=none
same_bytes "$dir/through-nbd" "$dir/disk"
nbd-client -d /dev/nbd0
