#!/usr/bin/env bash
# Tell the running SuperLink which keys may come in: every keys/*.pub, or those named on the command line.
# A key that is registered already is reported and left alone. To turn a node out: flwr supernode unregister ID federation
set -euo pipefail
cd "$(dirname "$0")"
export FLWR_HOME="$PWD/flower" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
[ $# -gt 0 ] || set -- keys/*.pub
for key in "$@"; do
  if flwr supernode register "$key" federation --name "$(basename "$key" .pub)"; then
    echo "registered $key"
  else
    echo "not registered (again?): $key"
  fi
done
