#!/bin/bash
# SPDX-License-Identifier: MIT
. "$(dirname "$0")/../lib/functions.sh"

step "nobody listens on the port"
uri=nbd://127.0.0.1:1/
one_device
gkproxy_refuses '127\.0\.0\.1.*refused.*running'

step "there is no such socket"
uri="nbd+unix:///?socket=$dir/none.sock"
one_device
gkproxy_refuses 'none\.sock.*no such file'

step "the name does not resolve"
uri=nbd://host.invalid/
one_device
gkproxy_refuses 'host\.invalid'

step "something listens that never says a word"
nbdkit_tcp memory 16M
kill -STOP "$server_pid"
one_device connect_timeout=2.0
gkproxy_refuses 'within 2 s'
