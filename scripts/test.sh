#!/usr/bin/env bash
# Builds everything once and runs all tests; what `make test` and CI call.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  echo "The tests make containers, networks and cgroups: run them as root (sudo make test)." >&2
  exit 1
fi

if [ "${CI:-}" = true ]; then
  export CARGO_INCREMENTAL=0
  export PINTLE_SIM_SEEDS="${PINTLE_SIM_SEEDS:-1000}"
fi

cargo build --workspace --all-targets --locked
if [ "${CI:-}" = true ]; then
  cargo fmt --all --check
fi
scripts/clients.sh all
cargo xtask tidy

# What failed is told once more at the end: a long log is often seen from there only. A machine that ends this script
# after a while would keep it from being told at all, so the script ends the tests before (PINTLE_TEST_MINUTES).
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=""
minutes="${PINTLE_TEST_MINUTES:-}"
[ "${CI:-}" != true ] || minutes="${minutes:-82}"
tests() {
  # Without a limit Ctrl-C reaches them.
  local limit=() result=0
  if [ -n "${minutes:-}" ]; then
    limit=(timeout --kill-after=20 "$((minutes * 60 > SECONDS ? minutes * 60 - SECONDS : 1))")
  fi
  # The whole workspace, for its crates are built with other features when some are built alone.
  "${limit[@]}" cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee -a "$log" || result=$?
  [ "$result" != 124 ] || echo "=== ended: all tests together may take $minutes minutes ===" | tee -a "$log"
  [ "$result" = 0 ] || failed=yes
}

tests
# The tests of one node once more, with another runtime below the kubelet, and with our own behind its socket.
for runtime in containerd socket; do
  echo "=== on the runtime: $runtime ==="
  PINTLE_E2E_RUNTIME=$runtime tests --test kubelet --test storage
done
if [ -n "$failed" ]; then
  echo "=== failures ==="
  awk '/^failures:$/ { inside = 1 } /^test result: / { inside = 0 } inside || /^=== ended/' "$log" | tail -n 200
  grep -E '^test .* FAILED' "$log" || true
  exit 1
fi
