#!/usr/bin/env bash
# Fuzzes the decoders: `scripts/fuzz.sh [SECONDS] [TARGET…]`, by default each target for ten minutes, one after the other.
# Needs cargo-fuzz (`cargo install cargo-fuzz`) and zstd. What it finds stays in fuzz/artifacts. fuzz/corpus keeps the
# seeds, and beside them what earlier runs found worth keeping, packed; `KEEP=1` packs what this run ends with.
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
  packed="fuzz/corpus/$target.tar.zst"
  [ ! -e "$packed" ] || tar --zstd -C "$work" -xf "$packed"
  cargo fuzz run --sanitizer none "$target" "$work" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
  if [ "${KEEP:-}" = 1 ]; then
    tar -C "$work" --sort=name --mtime=@0 --owner=0 --group=0 -cf - . | zstd -19 -q -f -o "$packed"
  fi
  rm -rf "$work"
done
