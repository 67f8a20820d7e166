#!/bin/busybox sh
# Process 1 of the virtual machine of vm-cgroup2.sh: runs everything, says how it went.
. /guest-begin.sh
echo "VM kernel: $(uname -r); cgroup filesystems: $(grep -c cgroup /proc/mounts), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
filter=$(sed -n 's/.*vm_filter=\([^ ]*\).*/\1/p' /proc/cmdline)
cd /tmp

/tests/linux --test-threads=1 cgroup device_filter; result "base/linux" $?
/tests/engine --test-threads=1 $filter; result "engine" $?

# docker, over everything that is different on version 2.
mkdir -p /tmp/d
pintle engine --data-dir /var/lib/pintle --run-dir /run/pintle --docker-socket /run/docker.sock --cgroup-root /pintle --node-ip 192.168.78.2 > /tmp/d/engine.log 2>&1 &
engine=$!
export DOCKER_HOST=unix:///run/docker.sock
tries=0
until docker version > /tmp/d/version 2>&1; do tries=$((tries + 1)); [ $tries -gt 60 ] && break; usleep 500000; done
docker info --format 'VM docker info: cgroup {{.CgroupDriver}} version {{.CgroupVersion}}, {{.Driver}}'
mkdir -p /tmp/d/image/bin /tmp/d/image/tmp
cp /bin/busybox /tmp/d/image/bin/busybox
for a in sh cat sleep echo dd head tail grep ls true mknod; do ln -s busybox /tmp/d/image/bin/$a; done
tar -C /tmp/d/image -c . | docker import - box > /dev/null; result "import" $?
g=/sys/fs/cgroup
expect "run" hello "$(docker run --rm box echo hello)"
expect "--memory" 33554432 "$(docker run --rm -m 32m box cat $g/memory.max)"
expect "--memory-swap" 33554432 "$(docker run --rm -m 32m --memory-swap 64m box cat $g/memory.swap.max)"
expect "--memory-reservation" 16777216 "$(docker run --rm --memory-reservation 16m box cat $g/memory.low)"
expect "--cpus" "50000 100000" "$(docker run --rm --cpus 0.5 box cat $g/cpu.max)"
expect "--cpu-shares" 59 "$(docker run --rm --cpu-shares 512 box cat $g/cpu.weight)"
expect "--cpuset-cpus" 1 "$(docker run --rm --cpuset-cpus 1 box cat $g/cpuset.cpus)"
expect "--pids-limit" 7 "$(docker run --rm --pids-limit 7 box cat $g/pids.max)"
expect "own cgroup only" "0::/" "$(docker run --rm box cat /proc/self/cgroup)"
docker run --rm --pids-limit 3 box sh -c 'sleep 9 & sleep 9 & sleep 9 & sleep 9 & wait' > /tmp/d/fork 2>&1
grep -q "can't fork" /tmp/d/fork; result "pids are limited" $?
docker run --name greedy -m 24m --memory-swap 24m box tail -c 200m /dev/zero; code=$?
expect "a container without memory is killed" "137 true" "$code $(docker inspect --format '{{.State.OOMKilled}}' greedy)"
docker run --rm box mknod /tmp/sda b 8 0 2>/dev/null && docker run --rm box sh -c 'mknod /tmp/v b 254 0; head -c 1 /tmp/v' > /dev/null 2>&1
expect "devices are refused" 1 "$?"
docker run --rm --device /dev/vda:/dev/x:r box head -c 1 /dev/x > /dev/null; result "a device is given" $?
docker run -d --name long box sh -c 'while true; do :; done' > /dev/null
docker pause long > /dev/null; expect "pause" "1 paused" "$(cat /sys/fs/cgroup/pintle/*/*/cgroup.freeze /sys/fs/cgroup/pintle/*/cgroup.freeze 2>/dev/null | grep -c 1) $(docker inspect --format '{{.State.Status}}' long)"
docker unpause long > /dev/null; result "unpause" $?
docker update -m 64m --memory-swap 64m --cpus 0.25 --pids-limit 9 long > /dev/null
expect "update" "67108864 25000 100000 9" "$(docker exec long cat $g/memory.max $g/cpu.max $g/pids.max | tr '\n' ' ' | sed 's/ $//')"
docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' long > /tmp/d/stats; cat /tmp/d/stats
grep -q '/ 64MiB' /tmp/d/stats; result "stats" $?
expect "top" 1 "$(docker top long | grep -c 'while true')"
kill -9 $engine; wait $engine 2>/dev/null
pintle engine --data-dir /var/lib/pintle --run-dir /run/pintle --docker-socket /run/docker.sock --cgroup-root /pintle --node-ip 192.168.78.2 >> /tmp/d/engine.log 2>&1 &
engine=$!
tries=0
until docker version > /tmp/d/version 2>&1; do tries=$((tries + 1)); [ $tries -gt 60 ] && break; usleep 500000; done
expect "survives the engine" running "$(docker inspect --format '{{.State.Status}}' long)"
docker rm -f long greedy > /dev/null; result "rm" $?
left=$(find /sys/fs/cgroup/pintle -mindepth 2 -type d)
expect "no cgroup is left" "" "$left"
[ $failed = 0 ] || tail -n 40 /tmp/d/engine.log
end
