#!/usr/bin/env bash
# Start the proxy (nginx.conf), the only process that the outside reaches. Needs nginx: apt-get install nginx-light
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PATH:/usr/sbin:/usr/local/sbin"  # where Debian keeps it
mkdir -p proxy
as=$([ "$(id -u)" -ne 0 ] || echo "user root;")  # or nginx would read uploads as nobody, who may not see this folder
exec nginx -p "$PWD" -c "$PWD/nginx.conf" -e stderr -g "daemon off; $as"
