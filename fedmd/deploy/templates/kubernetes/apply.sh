#!/usr/bin/env bash
# Bring this folder's files into a Kubernetes cluster and start what they are for:
#   kubernetes/apply.sh server            SuperLink and the proxy before it (server.yaml)
#   kubernetes/apply.sh nodes [NAME ...]  nodes, all of this folder's or those named (nodes.yaml is for all: cut it down)
# Run it again after a change of a file, then restart what reads it: kubectl -n fedmd rollout restart sts/server
# IMAGE is the image that Dockerfile makes, where the cluster can pull it. KUBECTL may be another command.
set -euo pipefail
cd "$(dirname "$0")/.."
kubectl=${KUBECTL:-kubectl}

put() {  # put configmap|"secret generic" NAME FILE... : make it, or replace it
  local files=()
  for file in "${@:3}"; do files+=("--from-file=$file"); done
  # shellcheck disable=SC2086
  $kubectl --namespace fedmd create $1 "$2" "${files[@]}" --dry-run=client --output yaml | $kubectl apply --filename -
}

start() {
  sed "s|image: fedmd\b|image: ${IMAGE:-fedmd}|" "kubernetes/$1.yaml" | $kubectl apply --filename -
}

case ${1:-} in
  server)
    $kubectl create namespace fedmd --dry-run=client --output yaml | $kubectl apply --filename -
    put configmap server superlink.sh register.sh offer_app.py nginx.conf run.toml register.json flower/config.toml \
      certificates/ca.pem certificates/server.pem certificates/superlink.pem
    put configmap bundle bundle/app.fab bundle/signature.json
    put configmap public-keys keys/*.pub
    put "secret generic" proxy-key certificates/server.key
    put "secret generic" superlink-key certificates/superlink.key
    start server
    ;;
  nodes)
    shift
    names=("$@")
    [ $# -gt 0 ] || for file in nodes/*.toml; do names+=("$(basename "$file" .toml)"); done
    $kubectl create namespace fedmd --dry-run=client --output yaml | $kubectl apply --filename -
    put configmap nodes supernode.sh publisher.yaml certificates/ca.pem
    for name in "${names[@]}"; do
      put configmap "$name" "nodes/$name.toml"
      put "secret generic" "key-$name" "keys/$name"
    done
    start nodes
    ;;
  *)
    echo "usage: kubernetes/apply.sh server|nodes [NAME ...]" >&2
    exit 2
    ;;
esac
