#!/usr/bin/env bash
# Installs the clients of other languages that the tests drive a cluster with, in the versions that their lock files
# name, below target/clients. What is there already is left alone.
#   clients.sh python | javascript | rust | all
set -euo pipefail
cd "$(dirname "$0")/.."
sources=crates/testkit/e2e/clients
target="$PWD/target/clients"
mkdir -p "$target"
exec 9>"$target/.lock"
flock 9

# fresh NAME FILE…: whether this was installed from these very files; if so there is nothing to do
fresh() {
  local name=$1
  shift
  sum=$(sha256sum "$@" | sha256sum)
  [ "$(cat "$target/$name/.installed" 2>/dev/null)" = "$sum" ]
}
done_with() { echo "$sum" >"$target/$1/.installed"; }

python() {
  command -v python3 >/dev/null || { echo "python3 is missing: run scripts/prepare.sh test" >&2; return 1; }
  fresh python "$sources/python/requirements.txt" && return
  rm -rf "$target/python"
  python3 -m venv "$target/python" || { echo "python3 makes no virtual environment: install python3-venv" >&2; return 1; }
  "$target/python/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$sources/python/requirements.txt"
  done_with python
}

javascript() {
  command -v node >/dev/null && command -v npm >/dev/null ||
    { echo "node or npm is missing: run scripts/prepare.sh test, or install Node.js 20 or later" >&2; return 1; }
  fresh javascript "$sources/javascript/package.json" "$sources/javascript/package-lock.json" || {
    mkdir -p "$target/javascript"
    cp "$sources"/javascript/package*.json "$target/javascript/"
    (cd "$target/javascript" && npm ci --silent --no-audit --no-fund --ignore-scripts)
    done_with javascript
  }
  # Modules are looked for beside the program that asks for them.
  cp "$sources"/javascript/*.mjs "$target/javascript/"
}

rust() {
  cargo build --quiet --locked --manifest-path "$sources/rust/Cargo.toml" --target-dir "$target/rust"
}

case "${1:-all}" in
  all) python && javascript && rust ;;
  python | javascript | rust) "$1" ;;
  *) echo "clients.sh python | javascript | rust | all" >&2; exit 2 ;;
esac
