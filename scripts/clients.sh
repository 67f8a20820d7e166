#!/usr/bin/env bash
# Installs the clients of other languages that the tests drive a cluster with, in the versions that their lock files
# name, below target/clients. What is there already is left alone.
#   clients.sh python | javascript | rust | docker | all
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

# environment NAME REQUIREMENTS: what a list of Python packages names
environment() {
  command -v python3 >/dev/null || { echo "python3 is missing: run scripts/prepare.sh test" >&2; return 1; }
  fresh "$1" "$2" && return
  rm -rf "${target:?}/$1"
  python3 -m venv "$target/$1" || { echo "python3 makes no virtual environment: install python3-venv" >&2; return 1; }
  "$target/$1/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$2"
  done_with "$1"
}

python() { environment python "$sources/python/requirements.txt"; }

# packages NAME LIST: Debian's packages of a list with all that they depend on, unpacked and not installed
packages() {
  fresh "$1" "$2" && return
  local place="$target/$1"
  rm -rf "$place"
  mkdir -p "$place/archives/partial" "$place/root"
  : >"$place/status"
  # With an empty list of what is installed, everything that the packages need is fetched.
  xargs apt-get install -qq -y --no-install-recommends --download-only \
    -o Dir::State::status="$place/status" -o Dir::Cache::archives="$place/archives" -o Debug::NoLocking=1 <"$2" ||
    { echo "apt-get cannot fetch the packages of $2: run apt-get update" >&2; return 1; }
  local archive
  for archive in "$place"/archives/*.deb; do
    # Compilers at run time, languages and translations are not needed.
    case "${archive##*/}" in libllvm* | libz3* | perl* | libperl* | locales*) continue ;; esac
    dpkg-deb -x "$archive" "$place/root"
  done
  rm -rf "$place/archives"
  done_with "$1"
}

docker() {
  environment docker-library "$sources/docker/library/requirements.txt"
  environment docker-compose "$sources/docker/compose/requirements.txt"
  packages docker-packages "$sources/docker/packages.txt"
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
  all) python && javascript && rust && docker ;;
  python | javascript | rust | docker) "$1" ;;
  *) echo "clients.sh python | javascript | rust | docker | all" >&2; exit 2 ;;
esac
