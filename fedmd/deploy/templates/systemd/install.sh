#!/usr/bin/env bash
# As root: a user for each process, to each its own key, and the units.
#   systemd/install.sh            on the server: the proxy and SuperLink
#   systemd/install.sh node-0     on a node's machine
set -euo pipefail
cd "$(dirname "$0")/.."
user() { id -u "$1" > /dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin "$1"; }
unit() {
  install -m 644 "systemd/$1" "/etc/systemd/system/$1"
  systemctl daemon-reload
  systemctl enable --now "$2"
}
if [ $# -gt 0 ]; then
  user "fedmd-$1"
  install -d -o "fedmd-$1" -m 700 "flower/$1"
  chmod 711 keys
  chown "fedmd-$1" "keys/$1"
  unit fedmd-supernode@.service "fedmd-supernode@$1.service"
else
  [ ! -e authority/ca.key ] || { echo "move authority/ to another machine first: ca.key signs servers" >&2; exit 1; }
  user fedmd-superlink
  user fedmd-proxy
  install -d -o fedmd-superlink -m 700 superlink
  install -d -o fedmd-superlink -m 755 run
  install -d -o fedmd-proxy -m 700 proxy
  chown fedmd-superlink certificates/superlink.key
  chown fedmd-proxy certificates/server.key
  unit fedmd-superlink.service fedmd-superlink.service
  unit fedmd-proxy.service fedmd-proxy.service
fi
