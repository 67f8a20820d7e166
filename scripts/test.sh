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

# What failed is told once more at the end: a long log is often seen from there only.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=""
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || failed=yes
# The tests of one node once more, with another runtime below the kubelet, and with our own behind its socket.
for runtime in containerd socket; do
  echo "=== on the runtime: $runtime ==="
  # The whole workspace, for its crates are built with other features when some are built alone.
  PINTLE_E2E_RUNTIME=$runtime cargo test --workspace --locked --no-fail-fast --test kubelet --test storage 2>&1 |
    tee -a "$log" || failed=yes
done
if [ -n "$failed" ]; then
  echo "=== failures ==="
  awk '/^failures:$/ { inside = 1 } /^test result: / { inside = 0 } inside' "$log" | tail -n 200
  exit 1
fi
