#!/usr/bin/env bash
# Tell the running SuperLink which keys may come in: every keys/*.pub, or those named on the command line.
# A key that is registered already is reported and left alone; whatever else goes wrong ends this with code 1.
# To turn a node out: flwr supernode unregister ID federation
set -euo pipefail
cd "$(dirname "$0")"
export FLWR_HOME="$PWD/flower" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
[ $# -gt 0 ] || set -- keys/*.pub
for key in "$@"; do
  if said=$(flwr supernode register "$key" federation --name "$(basename "$key" .pub)" 2>&1); then
    echo "registered $key"
  elif [[ $said == *"already in use"* ]]; then
    echo "registered before: $key"
  else
    echo "$key was not registered: $said" >&2
    exit 1
  fi
done
