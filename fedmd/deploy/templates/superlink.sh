#!/usr/bin/env bash
# Start the SuperLink: TLS on one port, and only nodes whose key was registered get in. Runs until it is stopped.
set -euo pipefail
cd "$(dirname "$0")"
export FLWR_HOME="$PWD/flower" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL="${FLWR_SUPEREXEC_TASK_POLL_INTERVAL:-0.5}"
exec flower-superlink \
  --ssl-ca-certfile certificates/ca.pem --ssl-certfile certificates/server.pem --ssl-keyfile certificates/server.key \
  --enable-supernode-auth --disable-runtime-dependency-installation \
  --database "${SUPERLINK_DATABASE:-flower/superlink.db}" \
  --host "${SUPERLINK_HOST:-{{ listen }}}" --port "${SUPERLINK_PORT:-{{ port }}}"
