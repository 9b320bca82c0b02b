#!/bin/bash
# SPDX-License-Identifier: MIT
# daemonset.yml is what the API of Kubernetes understands: its own generated models (the client for Python, of
# Debian) take each object, and give back every key and value that is in the file. A key with a slip of the pen, or
# in the wrong place, or of another type would be lost or changed.
set -euo pipefail
shopt -s inherit_errexit

top=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
# shellcheck source=tests/deploy/debian.sh
. "$top/tests/deploy/debian.sh"

root=$tmp/root
mkdir "$root"
archive=$(system trixie python3-kubernetes python3-yaml)
tar -C "$root" -xf "$archive"
cp "$top/deploy/container/daemonset.yml" "$root/root/"
cat >"$root/root/check.py" <<'END'
import json, sys, yaml
from kubernetes import client

kinds = {'v1 ConfigMap': 'V1ConfigMap', 'apps/v1 DaemonSet': 'V1DaemonSet'}
api = client.ApiClient()


class Answer:
    def __init__(self, document):
        self.data = json.dumps(document)


def compare(given, understood, path):
    if isinstance(given, dict) and isinstance(understood, dict):
        for key in given:
            compare(given[key], understood.get(key), path + '.' + key)
    elif isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        for i, item in enumerate(given):
            compare(item, understood[i], '%s[%d]' % (path, i))
    elif given != understood or type(given) is not type(understood):
        sys.exit('%s: %r, understood as %r' % (path, given, understood))


found = 0
for document in yaml.safe_load_all(open(sys.argv[1])):
    model = kinds[document['apiVersion'] + ' ' + document['kind']]
    understood = api.sanitize_for_serialization(api.deserialize(Answer(document), model))
    compare(document, understood, document['kind'])
    found += 1
    print('   %s is understood' % model)
sys.exit(found != 2)
END
in_system "$root" dpkg-query -W python3-kubernetes
in_system "$root" python3 /root/check.py /root/daemonset.yml
# It would notice.
sed 's/hostNetwork/hostnetwork/' "$root/root/daemonset.yml" >"$root/root/wrong.yml"
! in_system "$root" python3 /root/check.py /root/wrong.yml || fail "a wrong key is not noticed"
