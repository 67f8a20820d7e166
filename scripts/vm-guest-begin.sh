# What every virtual machine begins with: a small system around process 1. Read by the guests' scripts.
/bin/busybox --install -s /bin
mkdir -p /usr && ln -s /bin /usr/bin
export PATH=/bin HOME=/root RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts dev /dev/pts
mount -t tmpfs run /run
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
hostname vm
printf '#!/bin/sh\nexec /lib64/ld-linux-x86-64.so.2 --list "$1"\n' > /bin/ldd && chmod 755 /bin/ldd
ip link set lo up
ip link add eth0 type dummy && ip addr add 192.168.78.2/24 dev eth0 && ip link set eth0 up
ip route add default via 192.168.78.1
# As on any distribution: what starts is in a cgroup of its own, the root's controllers are on.
echo "+cpu +cpuset +memory +pids +io" > /sys/fs/cgroup/cgroup.subtree_control
failed=0
result() { # result NAME CODE
  if [ "$2" = 0 ]; then echo "VM ok: $1"; else echo "VM FAILED: $1 ($2)"; failed=1; fi
}
expect() { # expect NAME WANTED GOT
  if [ "$3" = "$2" ]; then echo "VM ok: $1"; else echo "VM FAILED: $1: expected '$2', got '$3'"; failed=1; fi
}
end() { # the last line, and out
  if [ $failed = 0 ]; then echo "VM RESULT: passed"; else echo "VM RESULT: failed"; fi
  sync
  poweroff -f
}
