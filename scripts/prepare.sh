#!/usr/bin/env bash
# Finds what is missing on a fresh Debian or Ubuntu and installs it, saying what.
#   prepare.sh run    what building and running needs
#   prepare.sh test   and what the tests drive the cluster with
set -euo pipefail

missing=()
need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
need cc gcc
[ -n "$(find /usr/lib /lib -name libc.a -print -quit 2>/dev/null)" ] || missing+=(libc6-dev)
need make make
if [ "${1:-run}" = test ]; then
  need python3 python3
  need ip iproute2
  need nft nftables
  need etcd etcd-server
  need openssl openssl
  need curl curl
  need dig bind9-dnsutils
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  need node nodejs
  need npm npm
  need docker-registry docker-registry
  need htpasswd apache2-utils
  need skopeo skopeo
  need podman podman
  need buildah buildah
  need containerd containerd
  need runc runc
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  need iptables iptables
  need bzip2 bzip2
  need xz xz-utils
  need zstd zstd
  need mkfs.ext4 e2fsprogs
  [ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || missing+=(busybox-static)
fi

if [ "${1:-run}" = test ] && ! command -v kubectl >/dev/null 2>&1; then
  echo "kubectl is missing: install version 1.27 or later (https://kubernetes.io/docs/tasks/tools), then run this again." >&2
  exit 1
fi
if ! command -v cargo >/dev/null 2>&1; then
  echo "Rust is missing: install it from https://rustup.rs, then run this again." >&2
  exit 1
fi
if [ ${#missing[@]} -gt 0 ]; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "Please install: ${missing[*]} (here without apt-get, so this cannot do it for you)" >&2
    exit 1
  fi
  echo "Installing missing packages: ${missing[*]}"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
