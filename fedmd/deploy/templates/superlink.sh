#!/usr/bin/env bash
# Start the SuperLink, on this machine's loopback and nowhere else: nodes come through the proxy (proxy.sh), which passes
# on what they may ask; runs are started and keys registered from here. Only nodes whose key was registered get in.
# It insists on TLS for that, so superlink.pem is a certificate for 127.0.0.1. Runs until it is stopped.
set -euo pipefail
cd "$(dirname "$0")"
export FLWR_HOME="$PWD/superlink" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL="${FLWR_SUPEREXEC_TASK_POLL_INTERVAL:-0.5}"
export FLWR_SUPERGRID_API_URL=http://127.0.0.1:9  # nobody's: apps come from bundle/, not from Flower's Hub
mkdir -p superlink
python offer_app.py
exec flower-superlink \
  --ssl-ca-certfile certificates/ca.pem \
  --ssl-certfile certificates/superlink.pem --ssl-keyfile certificates/superlink.key \
  --enable-supernode-auth --disable-runtime-dependency-installation \
  --database superlink/superlink.db --host 127.0.0.1 --port {{ control_port }}
