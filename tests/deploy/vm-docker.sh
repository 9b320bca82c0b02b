#!/bin/bash
# SPDX-License-Identifier: MIT
# A Debian 13 with Docker, in a virtual machine: the image of the Dockerfile, built here by buildah, is run by compose.yml
# as deploy/doc/container.md says, a disk attached over TLS and mounted by fstab (first boot), and found mounted after a
# boot (second boot): guest-docker.sh. Takes minutes: dockerd is large for an emulated processor.
set -euo pipefail
shopt -s inherit_errexit

suite=trixie
top=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
# shellcheck source=tests/deploy/debian.sh
. "$top/tests/deploy/debian.sh"
docs=$top/deploy/doc
# shellcheck source=tests/deploy/page.sh
. "$top/tests/deploy/page.sh"
# shellcheck source=tests/deploy/machine.sh
. "$top/tests/deploy/machine.sh"
start_builder

name=$(image "$suite" program)
build_with push -q "$name" "docker-archive:$(builder_path gkproxy.tar):gkproxy:latest"
archive=$(system "$suite" systemd-sysv udev docker.io docker-cli docker-compose nbdkit e2fsprogs openssl kmod)
machine "$archive"

mv "$builder_store/gkproxy.tar" "$root/root/gkproxy.tar"
mkdir -p "$root/srv/disks" "$root/etc/docker"
truncate -s 128M "$root/srv/disks/vol0"
# This guest has no bridges and no packet filter; gkproxy's container has the host's network.
echo '{"bridge": "none", "iptables": false, "ip6tables": false}' >"$root/etc/docker/daemon.json"
server store "$(block tls 'sh serve' | sed 's/^nbdkit/& -i 127.0.0.1/')" docker.service gkproxy-container.service
# For boot_twice.
image_size=2500M boot_seconds=600
boot_twice guest-docker.sh docker.service remote-fs.target
