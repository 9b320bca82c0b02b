# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What tests with TLS share; sourced after functions.sh.

pki=$dir/pki
export OPENSSL_CONF=/etc/ssl/openssl.cnf
mkdir "$pki"

# new_ca NAME: an authority, $pki/NAME.pem.
new_ca() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$1.key" \
		-out "$pki/$1.pem" -subj "/CN=$1" -days 3 2>"$dir/openssl.log" || fail "$(cat "$dir/openssl.log")"
}

# new_cert CA NAME: $pki/NAME.pem and .key, for localhost and 127.0.0.1, issued by CA.
new_cert() {
	{
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$2.key" \
			-out "$pki/$2.csr" -subj "/CN=$2"
		openssl x509 -req -in "$pki/$2.csr" -CA "$pki/$1.pem" -CAkey "$pki/$1.key" -CAcreateserial \
			-out "$pki/$2.pem" -days 2 \
			-extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1')
	} 2>"$dir/openssl.log" || fail "$(cat "$dir/openssl.log")"
	chmod 600 "$pki/$2.key"
}

# server_files CA SERVER FOLDER: the files as nbdkit and qemu-nbd want them named.
server_files() {
	mkdir -p "$3"
	cp "$pki/$1.pem" "$3/ca-cert.pem"
	cp "$pki/$2.pem" "$3/server-cert.pem"
	cp "$pki/$2.key" "$3/server-key.pem"
}

# nbdkit_tls ARGS...: on 127.0.0.1, only with TLS, and only for clients that the authority vouches for.
nbdkit_tls() {
	nbdkit_at -i 127.0.0.1 -p 10809 --tls=require --tls-certificates="$dir/tls" --tls-verify-peer -- "$@"
	uri=nbds://127.0.0.1/
}

# nbdkit_psk ARGS...: the same with a key of user alice.
nbdkit_psk() {
	nbdkit_at -i 127.0.0.1 -p 10809 --tls=require --tls-psk="$pki/server.psk" -- "$@"
	uri=nbds://alice@127.0.0.1/
}

# new_psk: the client's file and the server's, which reads it at every connect.
new_psk() {
	echo "alice:$(openssl rand -hex 32)" >"$pki/psk"
	chmod 600 "$pki/psk"
	cp "$pki/psk" "$pki/server.psk"
}

# with_certs [SETTING...]: the value of key tls.
with_certs() {
	echo "tls={ ca = \"$pki/ca.pem\"; cert = \"$pki/client.pem\"; key = \"$pki/client.key\"; $* }"
}

with_psk() {
	echo "tls={ psk_file = \"$pki/psk\"; $* }"
}

# tls_is MODE [VERSION]: what every connection says.
tls_is() {
	same "$(status '[.devices[0].connections[].tls] | unique | join(" ")')" "$1" "TLS of the connections"
	[ -z "${2:-}" ] ||
		same "$(status '[.devices[0].connections[].tls_version] | unique | join(" ")')" "$2" "its version"
}

# The kernel has TLS, and so does a connection that is free to use it.
modprobe -q tls || true
full=ktls-both

if [ "${1:-}" != without-certificates ]; then
	new_ca ca
	new_cert ca server
	new_cert ca client
	server_files ca server "$dir/tls"
fi
