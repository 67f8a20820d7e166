#!/usr/bin/env bash
# Builds everything once and runs all tests; what `make test` and CI call.
#   test.sh            all tests; of those on other runtimes, what takes few minutes
#   test.sh e2e        only the tests with real clients, on clusters and engines
#   test.sh runtimes   only the tests on other runtimes, all of them
set -euo pipefail
cd "$(dirname "$0")/.."

which="${1:-all}"
if [ "$which" != all ] && [ "$which" != e2e ] && [ "$which" != runtimes ]; then
  echo "\`$which\` is not understood: leave it out, or say e2e or runtimes." >&2
  exit 2
fi

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
if [ "$which" != runtimes ]; then
  scripts/clients.sh all
fi
if [ "$which" = all ]; then
  cargo xtask tidy
fi

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

# The named suites; a name that other crates have, too, runs there as well.
suites() { # suites SUITE…
  local suite chosen=()
  for suite in "$@"; do chosen+=(--test "$suite"); done
  tests "${chosen[@]}"
}

# What pods show, once more with another runtime below the kubelets, or with our own behind its socket.
on_runtime() { # on_runtime RUNTIME SUITE…
  local runtime=$1
  shift
  echo "=== on the runtime: $runtime ==="
  PINTLE_E2E_RUNTIME=$runtime suites "$@"
}

if [ "$which" = runtimes ]; then
  on_runtime containerd cri dual failures kubelet network nodes pods restart storage workloads
  on_runtime socket dual failures kubelet network nodes pods restart storage workloads
elif [ "$which" = e2e ]; then
  # shellcheck disable=SC2046 # names of files without spaces
  suites $(basename --suffix=.rs crates/testkit/e2e/tests/*.rs)
else
  tests
  on_runtime containerd kubelet storage
  on_runtime socket kubelet storage
fi
if [ -n "$failed" ]; then
  echo "=== failures ==="
  grep -E '^=== |^test .* FAILED' "$log" || true
  # Of each its beginning and its end, without the frames of the stack.
  awk '
    function tell(  at) {
      for (at = 1; at <= lines; at++) {
        if (lines <= 30 || at <= 10 || at > lines - 20) print line[at]
        else if (at == 11) print "…"
      }
      lines = 0
    }
    /^failures:$/ { inside = 1; next }
    /^test result: / { tell(); inside = 0 }
    /^---- / { tell() }
    END { tell() }
    inside && !/^ +[0-9]+: / && !/^ +at / && NF { line[++lines] = $0 }
  ' "$log" | tail -n 200
  exit 1
fi
