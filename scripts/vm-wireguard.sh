#!/usr/bin/env bash
# Boots a virtual machine whose kernel has WireGuard, and runs in it what few machines for tests can: the tunnels between
# nodes, alone and with a cluster of two nodes. `wg` says there, too, what our messages made.
#   vm-wireguard.sh          build what is missing, boot, print the results; the exit code says whether all passed
#   VM_ACCEL=kvm …           with the processor's help instead of emulation
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/vm.sh
need ip iproute2
need bridge iproute2
need nft nftables
need dash dash
need kubectl kubernetes-client
need docker docker-cli

# `wg` is unpacked and not installed.
wireguard_tools() {
  if ! [ -x "$work/wireguard-tools/usr/bin/wg" ]; then
    (cd "$work/deb" && apt-get download -qq wireguard-tools)
    dpkg -x "$work"/deb/wireguard-tools_*.deb "$work/wireguard-tools"
  fi
}

kernel
wireguard_tools
if [ -z "${VM_NO_BUILD:-}" ]; then
  cargo build -q -p pintle-network --example tunnel
  cargo build -q -p pintle
fi
peers_tests=${VM_PEERS_TESTS:-$(test_program pintle-network --test peers)}
begin_root
put "$(command -v dash)" /bin/sh
for program in ip bridge nft; do put "$(command -v $program)" /bin/$program; done
put "$work/wireguard-tools/usr/bin/wg" /bin/wg
put target/debug/examples/tunnel /bin/tunnel
put "$peers_tests" /tests/peers
if [ -z "${VM_NO_CLUSTER:-}" ]; then
  put "${VM_PINTLE:-target/debug/pintle}" /bin/pintle
  put "$(command -v kubectl)" /bin/kubectl
  put "$(command -v docker)" /bin/docker
fi
end_root scripts/vm-guest-wireguard.sh
# The kernel loads what belongs to WireGuard by itself.
initramfs overlay veth bridge nf_tables nft_chain_nat nft_masq nft_nat nft_ct nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 \
  nft_reject_inet nft_redir nft_numgen nft_hash dummy br_netfilter
boot
