#!/bin/sh
# Process 1 of the virtual machine of vm-wireguard.sh: runs everything, says how it went.
. /guest-begin.sh
echo "VM kernel: $(uname -r); WireGuard is $(grep -q '^wireguard ' /proc/modules && echo loaded || echo 'not loaded yet')"
cd /tmp
export WG_COLOR_MODE=never

PINTLE_TEST_WIREGUARD=must /tests/peers --test-threads=1; result "the tests of the ways between nodes" $?

# Two nodes on a link, by hand; `one` listens to what comes over the wire.
pods=10.42.0.0/16,fd00:42::/56
for n in 1 2; do ip netns add node-$n; done
ip link add wire netns node-1 type veth peer name wire netns node-2
on() { node=$1; shift; ip netns exec "node-$node" "$@"; }
for n in 1 2; do
  on $n ip link set lo up
  on $n ip link set wire up
  on $n ip addr add 192.168.5.$n/24 dev wire
  on $n ip addr add 10.42.$n.5/32 dev lo
  on $n ip addr add fd00:42:0:$n::5/128 dev lo
done
key1=$(on 1 tunnel up /tmp/1.key 192.168.5.1 10.42.1.0/24,fd00:42:0:1::/64 $pods)
key2=$(on 2 tunnel up /tmp/2.key 192.168.5.2 10.42.2.0/24,fd00:42:0:2::/64 $pods \
  "$key1" 192.168.5.1:51820 10.42.1.0/24,fd00:42:0:1::/64)
on 1 tunnel up /tmp/1.key 192.168.5.1 10.42.1.0/24,fd00:42:0:1::/64 $pods \
  "$key2" 192.168.5.2:51820 10.42.2.0/24,fd00:42:0:2::/64 > /tmp/key
expect "a key stays" "$key1" "$(cat /tmp/key)"
expect "the key's file" 600 "$(stat -c %a /tmp/1.key)"
expect "wg makes the same public key" "$key1" "$(wg pubkey < /tmp/1.key)"
on 2 nft 'add table inet look; add chain inet look in { type filter hook prerouting priority -300; };
  add rule inet look in iifname "wire" udp dport 51820 counter comment "encrypted";
  add rule inet look in iifname "wire" ip saddr 10.42.0.0/16 counter comment "plain";
  add rule inet look in iifname "wire" ip6 saddr fd00:42::/56 counter comment "plain"'
on 1 ping -q -c 3 -s 1400 -I 10.42.1.5 10.42.2.5; result "ping over IPv4" $?
on 1 ping6 -q -c 3 -s 1380 fd00:42:0:2::5; result "ping over IPv6" $?
mkdir -p /tmp/www && dd if=/dev/urandom of=/tmp/www/file bs=1k count=2000 2>/dev/null
on 2 httpd -p 80 -h /tmp/www
on 1 wget -q -O /tmp/got http://10.42.2.5/file
expect "2 MB over TCP" "$(sha256sum < /tmp/www/file)" "$(sha256sum < /tmp/got)"
count() { on 2 nft list table inet look | grep "\"$1\"" | sed 's/.*packets \([0-9]*\).*/\1/' | awk '{ n += $1 } END { print n + 0 }'; }
expect "nothing comes over the wire in the clear" 0 "$(count plain)"
[ "$(count encrypted)" -gt 6 ]; result "$(count encrypted) datagrams came over the wire" $?
echo "--- our look at node-1:"; on 1 tunnel show
echo "--- wg's:"; on 1 wg show
ours=$(on 1 tunnel show | sed -n 's/^peer: //p; s/^  endpoint: //p; s/^  allowed ips: //p' | sort)
theirs=$(on 1 wg show | sed -n 's/^peer: //p; s/^  endpoint: //p; s/^  allowed ips: //p' | sort)
expect "wg sees what we see" "$theirs" "$ours"
on 1 ip link show pintle0-wg | head -1
for n in 1 2; do ip netns del node-$n; done

# A whole cluster.
if [ -x /bin/pintle ]; then
  mkdir -p /etc/pintle && echo "pod-network: wireguard" > /etc/pintle/config.yaml
  pintle dev up --nodes 2; result "a cluster of two nodes" $?
  export KUBECONFIG=/var/lib/pintle-dev/dev/kubeconfig
  kubectl get nodes -o custom-columns='NAME:.metadata.name,KEY:.metadata.annotations.pintle\.io/wireguard-public-key,ENDPOINT:.metadata.annotations.pintle\.io/wireguard-endpoint'
  mkdir -p /tmp/image/bin && cp /bin/busybox /tmp/image/bin/busybox
  for a in sh sleep mkdir httpd; do ln -s busybox /tmp/image/bin/$a; done
  for n in 1 2; do
    tar -C /tmp/image -c . | docker -H unix:///var/lib/pintle-dev/dev/dev-$n/run/docker.sock import - box:1 > /dev/null; result "image on dev-$n" $?
    kubectl run on-$n --image=box:1 --image-pull-policy=Never --overrides='{"spec":{"nodeName":"dev-'$n'"}}' -- \
      sh -c 'mkdir /www; echo from $HOSTNAME > /www/index.html; httpd -f -p 80 -h /www' > /dev/null
  done
  kubectl wait --for=condition=Ready pod --all --timeout=300s; result "pods" $?
  address() { kubectl get pod "$1" -o 'jsonpath={.status.podIP}'; }
  # The pods have no libraries, which the names in wget need: it runs in their networks with the machine's.
  fetch() { # fetch FROM TO
    # One process of the pod that serves: all have its name in their environment.
    pid=$(grep -laz "^HOSTNAME=$1\$" /proc/[0-9]*/environ 2>/dev/null | head -1 | cut -d/ -f3)
    nsenter -t "$pid" -n wget -q -T 60 -O - "http://$(address "$2")/"
  }
  expect "pod to pod" "from on-2" "$(fetch on-1 on-2)"
  expect "and back" "from on-1" "$(fetch on-2 on-1)"
  echo "--- wg's look at dev-1:"; ip netns exec pintle-dev-1 wg show
  ip netns exec pintle-dev-1 wg show pintle0-wg transfer | awk '$2 > 0 && $3 > 0 { found = 1 } END { exit !found }'
  result "through the tunnel" $?
  [ $failed = 0 ] || tail -n 30 /var/lib/pintle-dev/dev/dev-*/data/pintle.log
  pintle dev down; result "the cluster is removed" $?
fi
end
