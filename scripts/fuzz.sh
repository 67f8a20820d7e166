#!/usr/bin/env bash
# Fuzzes the decoders: `scripts/fuzz.sh [SECONDS] [TARGET…]`, by default each target for ten minutes, one after the other.
# Needs cargo-fuzz (`cargo install cargo-fuzz`). What it finds stays in fuzz/artifacts; fuzz/corpus keeps the seeds, and
# what a run adds to it is worth keeping when it is minimised (`cargo fuzz cmin TARGET`).
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v pintle-fuzz)
# The coverage flags are the compiler's own business; without a sanitizer the stable one has all that is needed.
export RUSTC_BOOTSTRAP=1
for target in "${targets[@]}"; do
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  echo "== $target for $seconds s"
  cargo fuzz run --sanitizer none "$target" "$work" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
