#!/bin/bash
# SPDX-License-Identifier: MIT
# Whoever is not who it should be gets no data, and the message says what to do.
. "$(dirname "$0")/../lib/functions.sh"
. "$(dirname "$0")/../lib/tls.sh"

nbdkit_tls memory 16M
step "the right one"
start_gkproxy "$(with_certs)"
stop_gkproxy
step "the same with all of it in the URI, also for probe"
mkdir "$dir/client"
cp "$pki/ca.pem" "$dir/client/ca-cert.pem"
cp "$pki/client.pem" "$dir/client/client-cert.pem"
cp "$pki/client.key" "$dir/client/client-key.pem"
by_uri="nbds://127.0.0.1/?tls-certificates=$dir/client"
uri=$by_uri
start_gkproxy
tls_is "$full"
stop_gkproxy
gkproxy probe "$uri" >"$dir/probe"
grep -q 'TLSv1' "$dir/probe" || fail "probe says: $(cat "$dir/probe")"
uri="$by_uri&tls-hostname=elsewhere.example"
one_device
gkproxy_refuses 'certificate \(of server\) is not for "elsewhere\.example"'
uri+='&tls-verify-peer=0'
start_gkproxy
logged 'who the server is, is not verified'
stop_gkproxy
uri=nbds://127.0.0.1/
step "another authority"
new_ca other
one_device "tls={ ca = \"$pki/other.pem\"; }"
gkproxy_refuses 'authority that is not trusted here \(ca\): set tls\.ca'
step "another name"
one_device "$(with_certs 'hostname = "elsewhere.example";')"
gkproxy_refuses 'certificate \(of server\) is not for "elsewhere\.example"'
step "no client certificate"
one_device "tls={ ca = \"$pki/ca.pem\"; }"
gkproxy_refuses 'does the server want a client certificate'
step "in the clear"
uri=nbd://127.0.0.1/
one_device
gkproxy_refuses 'the server requires TLS: begin the URI with nbds'
stop_server

step "a server without TLS is not spoken to in the clear"
nbdkit_tcp memory 16M
uri=nbds://127.0.0.1/
one_device "$(with_certs)"
gkproxy_refuses 'the server has no TLS, which the URI asks for'
stop_server

step "a key that the URI names"
new_psk
nbdkit_psk memory 16M
uri="nbds://alice@127.0.0.1/?tls-psk-file=$pki/psk"
start_gkproxy
tls_is "$full"
stop_gkproxy
uri=nbds://alice@127.0.0.1/
step "another key, another user"
tr 0-9 1-90 <"$pki/server.psk" >"$pki/psk"
one_device "$(with_psk)"
gkproxy_refuses 'does it know the user, with the same key as tls\.psk_file'
sed 's/alice/bob/' "$pki/server.psk" >"$pki/psk"
uri=nbds://127.0.0.1/
one_device "$(with_psk)"
gkproxy_refuses 'does it know the user'
stop_server

step "what is unsafe is warned of, and nothing secret is said"
cp "$pki/server.psk" "$pki/psk"
chmod 644 "$pki/psk"
nbdkit_psk memory 16M
start_gkproxy "$(with_psk)"
logged 'may be read by every user: chmod 600'
secret=$(cut -d: -f2 "$pki/psk")
gkproxy status --json >"$dir/status"
! grep -qi "$secret" "$log" "$dir/status" || fail "the key was said"
! grep -qaF "$secret" "/proc/$gkproxy_pid/cmdline" || fail "the key is in the command line"
stop_gkproxy
stop_server
nbdkit_tls memory 16M
start_gkproxy "tls={ verify = false; cert = \"$pki/client.pem\"; key = \"$pki/client.key\"; }"
logged 'who the server is, is not verified'
before=$(grep -c 'is not verified' "$log")
stop_server KILL
nbdkit_tls memory 16M
again() { [ "$(grep -c 'is not verified' "$log")" -gt "$before" ]; }
wait_for 30 "the warning comes again" again
