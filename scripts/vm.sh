#!/usr/bin/env bash
# What the scripts that boot a virtual machine share: its kernel, its disk, its start. Read by them, not run by itself.
# VM_ACCEL=kvm takes the processor's help instead of emulation. Everything is below target/vm; the machine has no network
# beyond itself and no disk of the host.

accel=${VM_ACCEL:-tcg}
cpu=$([ "$accel" = tcg ] && echo max || echo "${VM_CPU:-host}")
memory_mb=${VM_MEMORY_MB:-3072}
patience=${VM_PATIENCE_S:-3000}
work=$PWD/target/vm
root=$work/root

need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || { echo "$1 is missing: apt-get install $2" >&2; exit 1; }
}
need qemu-system-x86_64 qemu-system-x86
need mke2fs e2fsprogs
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

# Empties the guest's root and puts into it what every system has.
begin_root() {
  rm -rf "$root" && mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,etc,var/lib,root,lib}
  put "$(command -v busybox)" /bin/busybox
  # Where the kernel looks for it when it wants a module.
  ln -s /bin/busybox "$root/sbin/modprobe"
  cp -a "$work/kernel/lib/modules" "$root/lib/"
  printf 'root:x:0:0:root:/root:/bin/sh\n' > "$root/etc/passwd"
  printf 'root:x:0:\n' > "$root/etc/group"
  printf '127.0.0.1 localhost vm\n' > "$root/etc/hosts"
  printf 'nameserver 127.0.0.1\n' > "$root/etc/resolv.conf"
}

# Makes the disk of the root; this script is what the machine runs, with busybox unless there is another shell: one that
# takes no command for its own but those that a shell has.
end_root() { # end_root GUEST_SCRIPT
  [ -e "$root/bin/sh" ] || ln -s busybox "$root/bin/sh"
  cp "$1" "$root/guest.sh"
  cp scripts/vm-guest-begin.sh "$root/guest-begin.sh"
  rm -f "$work/disk.img"
  mke2fs -q -t ext4 -d "$root" "$work/disk.img" 3G
}

# What finds the disk: busybox and the modules in the order in which they are needed.
initramfs() { # initramfs MODULE…
  local top=$work/initramfs
  rm -rf "$top" && mkdir -p "$top"/{bin,dev,proc,sys,new,lib}
  cp "$(command -v busybox)" "$top/bin/busybox"
  cp -a "$work/kernel/lib/modules" "$top/lib/"
  cat > "$top/init" <<END
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
for module in virtio_pci virtio_blk ext4 $*; do /bin/busybox modprobe \$module; done
/bin/busybox mount -t ext4 /dev/vda /new || exec /bin/busybox poweroff -f
/bin/busybox umount /proc
exec /bin/busybox switch_root /new /bin/sh /guest.sh
END
  chmod 755 "$top/init"
  (cd "$top" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) > "$work/initramfs.gz"
}

# Boots it, shows what it says, and fails unless that ends well.
boot() {
  echo "Booting Linux $release with ${accel}."
  # -no-reboot: a kernel that panics ends the run.
  timeout "$patience" qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -smp 2 -m "$memory_mb" -nographic -no-reboot -net none \
    -kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/initramfs.gz" \
    -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 vm_filter=${VM_FILTER:-}" \
    -drive "file=$work/disk.img,format=raw,if=virtio" < /dev/null | tee "$work/console.log"
  grep -aq '^VM RESULT: passed' "$work/console.log"
}
