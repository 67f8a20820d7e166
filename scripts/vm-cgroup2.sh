#!/usr/bin/env bash
# Boots a virtual machine whose only cgroup hierarchy is version 2, and runs the engine's tests and `docker` in it.
#   vm-cgroup2.sh            build what is missing, boot, print the results; the exit code says whether all passed
#   VM_ACCEL=kvm …           with the processor's help instead of emulation
# Everything it makes is below target/vm; the machine has no network beyond itself and no disk of the host.
set -euo pipefail
cd "$(dirname "$0")/.."

accel=${VM_ACCEL:-tcg}
cpu=$([ "$accel" = tcg ] && echo max || echo "${VM_CPU:-host}")
memory_mb=${VM_MEMORY_MB:-3072}
patience=${VM_PATIENCE_S:-3000}
work=$PWD/target/vm
modules=(overlay virtio_blk ext4 veth bridge nf_tables nft_chain_nat nft_masq nft_nat nft_ct nft_fib_inet nft_fib_ipv4 nft_fib_ipv6
  nft_reject_inet nft_redir nft_numgen nft_hash dummy macvlan br_netfilter)

need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || { echo "$1 is missing: apt-get install $2" >&2; exit 1; }
}
need qemu-system-x86_64 qemu-system-x86
need mke2fs e2fsprogs
need docker docker-cli
need busybox busybox-static

# The kernel is Debian's, unpacked and not installed.
kernel() {
  mkdir -p "$work/deb"
  if ! ls "$work"/kernel/boot/vmlinuz-* >/dev/null 2>&1; then
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}')
    (cd "$work/deb" && apt-get download -qq "$package")
    dpkg -x "$work"/deb/"$package"_*.deb "$work/kernel"
  fi
  release=$(basename "$work"/kernel/lib/modules/*)
  busybox depmod -b "$work/kernel" "$release"
}

# The path of a test program, built if need be.
test_program() { # test_program PACKAGE ARGUMENT…
  local package=$1
  shift
  cargo test -q -p "$package" "$@" --no-run --message-format=json 2>/dev/null |
    python3 -c 'import json,sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("executable") and m["profile"]["test"]: print(m["executable"])'
}

# Copies a program, without its debug information, and the libraries it needs to where they are here.
put() { # put PROGRAM [TARGET]
  local to=$root${2:-$1} library
  mkdir -p "$(dirname "$to")"
  objcopy --strip-debug "$1" "$to" 2>/dev/null || cp "$1" "$to"
  chmod 755 "$to"
  for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
    [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; }
  done
}

# The guest's disk: programs at the very paths that the tests were built with.
disk() {
  root=$work/root
  rm -rf "$root" && mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,etc,var/lib,root,lib}
  put "$(command -v busybox)" /bin/busybox
  put target/debug/pintle /bin/pintle
  put "$PWD/target/debug/pintle-shim"
  put "$PWD/target/debug/pintle-pause"
  put "$(command -v docker)" /bin/docker
  put "$engine_tests" /tests/engine
  put "$linux_tests" /tests/linux
  cp -a "$work/kernel/lib/modules" "$root/lib/"
  printf 'root:x:0:0:root:/root:/bin/sh\n' > "$root/etc/passwd"
  printf 'root:x:0:\n' > "$root/etc/group"
  printf '127.0.0.1 localhost vm\n' > "$root/etc/hosts"
  printf 'nameserver 127.0.0.1\n' > "$root/etc/resolv.conf"
  cp scripts/vm-guest.sh "$root/guest.sh"
  rm -f "$work/disk.img"
  mke2fs -q -t ext4 -d "$root" "$work/disk.img" 3G
}

# What finds the disk: busybox and the modules in the order in which they are needed.
initramfs() {
  local top=$work/initramfs
  rm -rf "$top" && mkdir -p "$top"/{bin,dev,proc,sys,new,lib}
  cp "$(command -v busybox)" "$top/bin/busybox"
  cp -a "$work/kernel/lib/modules" "$top/lib/"
  cat > "$top/init" <<END
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
for module in virtio_pci ${modules[*]}; do /bin/busybox modprobe \$module; done
/bin/busybox mount -t ext4 /dev/vda /new || exec /bin/busybox poweroff -f
/bin/busybox umount /proc
exec /bin/busybox switch_root /new /bin/busybox sh /guest.sh
END
  chmod 755 "$top/init"
  (cd "$top" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) > "$work/initramfs.gz"
}

kernel
if [ -z "${VM_NO_BUILD:-}" ]; then
  cargo build -q -p pintle
  cargo build -q -p pintle-shim --bins
fi
engine_tests=${VM_ENGINE_TESTS:-$(test_program pintle-shim --test engine)}
linux_tests=${VM_LINUX_TESTS:-$(test_program pintle-linux --lib)}
disk
initramfs
echo "Booting Linux $release with ${accel}."
# -no-reboot: a kernel that panics ends the run.
timeout "$patience" qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -smp 2 -m "$memory_mb" -nographic -no-reboot -net none \
  -kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/initramfs.gz" \
  -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 vm_filter=${VM_FILTER:-}" \
  -drive "file=$work/disk.img,format=raw,if=virtio" < /dev/null | tee "$work/console.log"
grep -aq '^VM RESULT: passed' "$work/console.log"
