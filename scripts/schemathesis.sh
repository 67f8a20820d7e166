#!/usr/bin/env bash
# Sends what schemathesis makes up from the published OpenAPI v3 documents to an API server in memory. Fails when an
# answer is a 5xx, or not of the form or content type that the documents promise.
#   schemathesis.sh [GROUP…]     as in `apis/apps/v1`; every group without one
# EXAMPLES: requests made up per operation (default 5). SECONDS_PER_GROUP: what each may take (default 300).
# PHASES: coverage (each parameter and field, wrong in each way), fuzzing, or both (default).
# PYTHON: which one; without it the first of 3.13, 3.12 and python3 that runs (a bug of 3.11 ends some operations early).
# What was sent and answered is below target/schemathesis/logs.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.32.0
home="$PWD/target/schemathesis"
logs="$home/logs"
mkdir -p "$logs"
if [ "$(cat "$home/.installed" 2>/dev/null)" != "$version" ]; then
  for python in ${PYTHON:-python3.13 python3.12 python3}; do
    "$python" -c '' 2>/dev/null && break
  done
  "$python" -m venv --clear "$home/python" || { echo "python3 makes no virtual environment: install python3-venv" >&2; exit 2; }
  "$home/python/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
  echo "$version" >"$home/.installed"
fi

cargo build --quiet -p pintle-apiserver --example serve
work=$(mktemp -d)
"${CARGO_TARGET_DIR:-target}/debug/examples/serve" "$work/kubeconfig" 0 2>"$logs/server.log" &
server=$!
trap 'kill -INT $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 300); do
  [ -s "$work/kubeconfig" ] && break
  kill -0 $server 2>/dev/null || { cat "$logs/server.log" >&2; exit 2; }
  sleep 0.1
done
field() { grep -oE "$1: *\"?[^\",} ]+" "$work/kubeconfig" | head -n 1 | sed -E 's/^[^:]*: *"?//'; }
url=$(field server)
field certificate-authority-data | base64 -d >"$work/ca.crt"
field client-certificate-data | base64 -d >"$work/client.crt"
field client-key-data | base64 -d >"$work/client.key"
identity=(--cacert "$work/ca.crt" --cert "$work/client.crt" --key "$work/client.key")
if [ $# -eq 0 ]; then
  # Groups in a version: the documents that have operations on objects.
  mapfile -t groups < <(curl -sSf "${identity[@]}" "$url/openapi/v3" | grep -oE '"(api/v1|apis/[^"/]+/[^"/]+)"' | tr -d '"' | sort -u)
else
  groups=("$@")
fi

failed=0
seconds=${SECONDS_PER_GROUP:-300}
for group in "${groups[@]}"; do
  log="$logs/${group//\//_}.log"
  # A document is read from a file, as only requests, not the document's own, carry the certificate.
  curl -sSf "${identity[@]}" "$url/openapi/v3/$group" >"$work/document.json"
  PYTHONPATH=scripts SCHEMATHESIS_HOOKS=schemathesis_hooks timeout $((seconds + 120)) \
    "$home/python/bin/schemathesis" run "$work/document.json" --url "$url" \
    --request-cert "$work/client.crt" --request-cert-key "$work/client.key" --tls-verify "$work/ca.crt" \
    --checks not_a_server_error,response_schema_conformance,content_type_conformance \
    --max-time "$seconds" --phases "${PHASES:-coverage,fuzzing}" --max-examples "${EXAMPLES:-5}" --seed "${SEED:-1}" --generation-database none \
    --exclude-path-regex '/watch/|/(exec|attach|portforward|proxy|log)($|/)|/namespaces/[^/]*/finalize' \
    --request-timeout 20 --no-color >"$log" 2>&1 && code=0 || code=$?
  # The program ends with 1 also for errors of its own, which say nothing of the server.
  verdict=ok
  if grep -qE '^=+ FAILURES =+$' "$log" || { [ $code -ne 0 ] && ! grep -qE '[0-9]+ (generated|passed)' "$log"; }; then
    verdict=FAILED
    failed=1
  fi
  [ $code -ne 124 ] || verdict="$verdict, cut off"
  echo "$group: $verdict ($(grep -oE '[0-9]+ generated.*' "$log" | tail -n 1))"
  kill -0 $server 2>/dev/null || { echo "the server ended: see $logs/server.log" >&2; exit 1; }
done
exit $failed
