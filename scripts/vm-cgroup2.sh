#!/usr/bin/env bash
# Boots a virtual machine whose only cgroup hierarchy is version 2, and runs the engine's tests and `docker` in it.
#   vm-cgroup2.sh            build what is missing, boot, print the results; the exit code says whether all passed
#   VM_ACCEL=kvm …           with the processor's help instead of emulation
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/vm.sh
need docker docker-cli

kernel
if [ -z "${VM_NO_BUILD:-}" ]; then
  cargo build -q -p pintle
  cargo build -q -p pintle-shim --bins
fi
engine_tests=${VM_ENGINE_TESTS:-$(test_program pintle-shim --test engine)}
linux_tests=${VM_LINUX_TESTS:-$(test_program pintle-linux --lib)}
# Programs are at the very paths that the tests were built with.
begin_root
put target/debug/pintle /bin/pintle
put "$PWD/target/debug/pintle-shim"
put "$PWD/target/debug/pintle-pause"
put "$(command -v docker)" /bin/docker
put "$(command -v mkfs.ext4)" /bin/mkfs.ext4
put "$engine_tests" /tests/engine
put "$linux_tests" /tests/linux
end_root scripts/vm-guest.sh
initramfs loop overlay veth bridge nf_tables nft_chain_nat nft_masq nft_nat nft_ct nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 \
  nft_reject_inet nft_redir nft_numgen nft_hash dummy macvlan br_netfilter
boot
