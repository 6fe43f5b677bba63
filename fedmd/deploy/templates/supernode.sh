#!/usr/bin/env bash
# Start the node NAME: ./supernode.sh NAME [PORT]. PORT is for the node's own processes, on loopback; every node of one
# machine needs another. This script, certificates/ca.pem, publisher.yaml, keys/NAME and nodes/NAME.toml are all a node's
# machine needs, besides an environment with fedmd installed. It runs only apps that a key in publisher.yaml signed, so
# the server cannot send it other code: leave --trusted-entities out, and the server can.
set -euo pipefail
cd "$(dirname "$0")"
name=${1:?usage: ./supernode.sh NAME [PORT]}
export FLWR_HOME="$PWD/flower/$name" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL="${FLWR_SUPEREXEC_TASK_POLL_INTERVAL:-0.5}"
exec flower-supernode \
  --root-certificates certificates/ca.pem --auth-supernode-private-key "keys/$name" \
  --superlink "${SUPERLINK:-{{ host }}:{{ port }}}" --host 127.0.0.1 --port "${2:-9094}" \
  --trusted-entities publisher.yaml --node-config "nodes/$name.toml"
