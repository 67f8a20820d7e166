//! Two hosts on one link whose sandboxes reach each other, in network namespaces of their own.

use ipnet::IpNet;
use pintle_netlink::wireguard::{Device, DeviceChange, PeerChange, PeerSettings, PublicKey, WireGuard};
use pintle_netlink::{Netlink, Peer, Veth};
use pintle_network::{
    Backend, BridgeNetwork, Config, PeerNode, Peers, PeersConfig, TunnelConfig, TunnelEnd, sandbox_mtu,
};
use pintle_test_netns::Space;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

const PORT: u16 = 4000;
const BYTES: usize = 200_000;
const WAIT: Duration = Duration::from_secs(5);

/// A host with a bridge, one sandbox, and its peers.
struct Node {
    host: Space,
    sandbox: Space,
    /// One of each family, as everything here.
    addresses: Vec<IpAddr>,
    subnets: Vec<IpNet>,
    ips: Vec<IpAddr>,
    tunnel: Option<TunnelEnd>,
    peers: Peers,
}

impl Node {
    fn as_peer(&self) -> PeerNode<'_> {
        PeerNode { subnets: &self.subnets, addresses: &self.ips, tunnel: self.tunnel }
    }

    /// The WireGuard link, as the kernel has it.
    fn device(&self) -> Device {
        WireGuard::in_namespace(self.host.file.as_fd()).expect("socket").get("pods-wg").expect("link")
    }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("range")).collect()
}

fn cluster() -> Vec<IpNet> {
    nets(&["10.42.0.0/16", "fd00:42::/56"])
}

fn peers(backend: Backend, own: &[IpNet], node: &[IpAddr]) -> Peers {
    let (own, node) = (own.to_vec(), node.to_vec());
    Peers::open(PeersConfig { backend, device_prefix: "pods".into(), cluster: cluster(), own, node }).expect("peers")
}

fn node(folder: &Path, number: u8, host: Space, backend: Backend) -> Node {
    let sandbox = Space::new(folder, &format!("sandbox-{number}"));
    let ips: Vec<IpAddr> = [format!("192.168.5.{number}"), format!("fd05::{number}")]
        .iter()
        .map(|ip| ip.parse().expect("address"))
        .collect();
    let subnets = nets(&[&format!("10.42.{number}.0/24"), &format!("fd00:42:0:{number}::/64")]);
    let sandbox_path = sandbox.path.clone();
    let (addresses, tunnel, peers) = host.inside(|| {
        let config = Config {
            bridge: "pods".into(),
            pod_subnets: subnets.clone(),
            cluster_subnets: cluster(),
            translated_subnets: Vec::new(),
            state_dir: folder.join(format!("state-{number}")),
            mtu: sandbox_mtu(backend, ips[0]).expect("mtu"),
        };
        let network = BridgeNetwork::open(config).expect("bridge");
        let attachment = network.setup("s", &sandbox_path, &[]).expect("sandbox");
        let tunnel = tunnel(backend, folder, number, ips[0]);
        (attachment.addresses, tunnel, peers(backend, &subnets, &ips))
    });
    serve(&sandbox);
    Node { host, sandbox, addresses, subnets, ips, tunnel, peers }
}

fn tunnel(backend: Backend, folder: &Path, number: u8, node: IpAddr) -> Option<TunnelEnd> {
    let key_file = folder.join(format!("{number}.key"));
    let config = TunnelConfig { device_prefix: "pods".into(), key_file, port: 51820, node };
    (backend == Backend::Wireguard).then(|| TunnelEnd::open(&config).expect("tunnel"))
}

fn pair(name: &str, backend: Backend) -> (tempfile::TempDir, Node, Node) {
    let folder = tempfile::Builder::new().prefix(&format!("pintle-peers-{name}-")).tempdir().expect("folder");
    let hosts = [1, 2].map(|number: u8| Space::new(folder.path(), &format!("host-{number}")));
    let mut first = Netlink::in_namespace(hosts[0].file.as_fd()).expect("socket");
    let peer = Peer { name: "eth0", hardware: None, namespace: Some(hosts[1].file.as_fd()) };
    first.add_veth(&Veth { name: "eth0", mtu: 1500, master: None, group: 0, peer }).expect("pair");
    for (host, number) in hosts.iter().zip(1..) {
        host.run(&format!(
            "ip link set eth0 up; ip address add 192.168.5.{number}/24 dev eth0; ip address add fd05::{number}/64 dev eth0 nodad"
        ));
    }
    let [one, two] = hosts;
    let one = node(folder.path(), 1, one, backend);
    let two = node(folder.path(), 2, two, backend);
    (folder, one, two)
}

fn reach_all(from: &Space, to: &[IpAddr], why: &str) {
    for address in to {
        reaches(from, *address).unwrap_or_else(|error| panic!("{why}: {address}: {error}"));
    }
}

/// Whether as many bytes come back from there as make many of the largest packets.
fn reaches(from: &Space, to: IpAddr) -> std::io::Result<()> {
    from.inside(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), WAIT)?;
        stream.set_read_timeout(Some(WAIT))?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len(), BYTES);
        Ok(())
    })
}

fn serve(space: &Space) {
    let listener = space.inside(|| TcpListener::bind(("::", PORT))).expect("bind");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // A client that goes away is no concern of ours.
            let _ = stream.write_all(&[7; BYTES]);
        }
    });
}

fn meet(name: &str, backend: Backend, mtu: u32) {
    let (_folder, one, two) = pair(name, backend);
    for address in &two.addresses {
        assert!(reaches(&one.sandbox, *address).is_err(), "nobody was told of the other");
    }
    one.peers.set(&two.as_peer()).expect("set");
    two.peers.set(&one.as_peer()).expect("set");
    reach_all(&one.sandbox, &two.addresses, "sandboxes meet");
    let link = one.sandbox.run("ip link show dev eth0");
    assert!(link.contains(&format!("mtu {mtu} ")), "{link}");
    reach_all(&one.host, &two.addresses, "a host reaches a sandbox of the other");
    // Another run of the first host: what it finds goes on working, and what is stale goes.
    let stale = nets(&["10.42.9.0/24", "fd00:42:0:9::/64"]);
    let gone = one.tunnel.map(|end| TunnelEnd { key: PublicKey([9; 32]), ..end });
    one.peers.set(&PeerNode { subnets: &stale, addresses: &two.ips, tunnel: gone }).expect("set");
    let again = one.host.inside(|| peers(backend, &one.subnets, &one.ips));
    reach_all(&one.sandbox, &two.addresses, "adopted");
    again.set(&two.as_peer()).expect("set");
    again.retain().expect("retain");
    let routes = one
        .host
        .run("ip route; ip -6 route; ip neighbor; ip -6 neighbor; bridge fdb show dev pods-vx 2>/dev/null || true");
    for gone in ["10.42.9.0", "fd00:42:0:9:", "0a:59:0a:2a:09:00"] {
        assert!(!routes.contains(gone), "{routes}");
    }
    reach_all(&one.sandbox, &two.addresses, "kept");

    for (subnet, address) in two.subnets.iter().zip(&two.addresses) {
        again.remove(*subnet).expect("remove");
        assert!(reaches(&one.sandbox, *address).is_err(), "taken away");
    }
    two.host.inside(|| Peers::remove_all("pods", &cluster())).expect("remove all");
    let left = two.host.run("ip route; ip -6 route; ip link");
    for gone in ["10.42.1.0", "fd00:42:0:1:", "pods-vx", "pods-wg"] {
        assert!(!left.contains(gone), "{left}");
    }
}

#[test]
fn sandboxes_meet_through_vxlan() {
    meet("vxlan", Backend::Vxlan, 1450);
}

#[test]
fn sandboxes_meet_through_their_hosts() {
    meet("gateway", Backend::HostGateway, 1500);
}

/// Where `PINTLE_TEST_WIREGUARD` is set, it has to be there.
fn has_wireguard(folder: &Path) -> bool {
    let probe = Space::new(folder, "probe");
    let made = Netlink::in_namespace(probe.file.as_fd()).expect("socket").add_wireguard("probe", 1420, 0);
    let lacking = made.as_ref().is_err_and(pintle_netlink::Error::is_unsupported);
    assert!(made.is_ok() || lacking, "{made:?}");
    assert!(made.is_ok() || std::env::var_os("PINTLE_TEST_WIREGUARD").is_none(), "this kernel has no WireGuard");
    made.is_ok()
}

/// On a kernel without WireGuard: what, where, and what to do.
fn says_what_is_missing(folder: &Path) {
    let host = Space::new(folder, "lacking");
    let key_file = folder.join("lacking.key");
    let node = "192.168.5.1".parse().expect("address");
    let config = TunnelConfig { device_prefix: "pods".into(), key_file: key_file.clone(), port: 51820, node };
    let error = host.inside(|| TunnelEnd::open(&config)).expect_err("no WireGuard").to_string();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("release");
    for part in ["pods-wg", release.trim(), "has no WireGuard", "modprobe wireguard", "--pod-network"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert!(!key_file.exists(), "nothing is left of the attempt");
    assert!(!host.run("ip link").contains("pods"), "nothing else was made in its place");
}

#[test]
fn sandboxes_meet_through_wireguard() {
    let folder = tempfile::Builder::new().prefix("pintle-peers-probe-").tempdir().expect("folder");
    if has_wireguard(folder.path()) {
        meet("wireguard", Backend::Wireguard, 1440);
    } else {
        says_what_is_missing(folder.path());
    }
}

#[test]
fn a_change_of_one_node_changes_one_peer() {
    let probe = tempfile::Builder::new().prefix("pintle-peers-probe-").tempdir().expect("folder");
    if !has_wireguard(probe.path()) {
        return says_what_is_missing(probe.path());
    }
    let (folder, one, mut two) = pair("tunnels", Backend::Wireguard);
    let own = one.tunnel.expect("tunnel");
    one.peers.set(&two.as_peer()).expect("set");
    two.peers.set(&one.as_peer()).expect("set");
    reach_all(&one.sandbox, &two.addresses, "sandboxes meet");
    let device = one.device();
    assert_eq!((device.key, device.port, device.peers.len()), (Some(own.key), 51820, 1));
    let met = device.peers[0].clone();
    let mut allowed = met.allowed.clone();
    allowed.sort();
    assert_eq!((met.endpoint, allowed), (two.tunnel.map(|end| end.endpoint), two.subnets.clone()));
    assert!(met.last_handshake.is_some() && met.received_bytes > 2 * BYTES as u64 && met.sent_bytes > 0, "{met:?}");

    // A third node, and more of them than one message has.
    let strangers: Vec<(PublicKey, IpNet)> =
        (10..110_u8).map(|n| (PublicKey([n; 32]), nets(&[&format!("10.42.{n}.0/24")])[0])).collect();
    for (key, subnet) in &strangers {
        let tunnel = Some(TunnelEnd { key: *key, ..own });
        one.peers.set(&PeerNode { subnets: &[*subnet], addresses: &two.ips, tunnel }).expect("set");
    }
    let all = one.device();
    assert_eq!(all.peers.len(), 101, "read from several messages");
    let now = all.peers.iter().find(|peer| peer.key == met.key).expect("still there");
    assert_eq!(now.last_handshake, met.last_handshake, "the peer that did not change was left alone");
    for (_, subnet) in &strangers {
        one.peers.remove(*subnet).expect("remove");
    }
    assert_eq!(one.device().peers.len(), 1);

    // One range less, then none.
    one.peers.remove(two.subnets[1]).expect("remove");
    assert_eq!(one.device().peers[0].allowed, two.subnets[..1]);
    assert!(reaches(&one.sandbox, two.addresses[1]).is_err(), "taken away");
    reach_all(&one.sandbox, &two.addresses[..1], "the other range is still led there");
    one.peers.set(&two.as_peer()).expect("set");

    // The second node starts again, first with its key, then with a new one.
    let again = two.host.inside(|| tunnel(Backend::Wireguard, folder.path(), 2, two.ips[0]));
    assert_eq!(again, two.tunnel, "the key stays");
    reach_all(&one.sandbox, &two.addresses, "adopted with its peers");
    std::fs::remove_file(folder.path().join("2.key")).expect("remove");
    two.tunnel = two.host.inside(|| tunnel(Backend::Wireguard, folder.path(), 2, two.ips[0]));
    assert_ne!(again, two.tunnel);
    one.peers.set(&two.as_peer()).expect("set");
    let keys: Vec<PublicKey> = one.device().peers.iter().map(|peer| peer.key).collect();
    assert_eq!(keys, [two.tunnel.expect("tunnel").key], "the old key is gone");
    reach_all(&one.sandbox, &two.addresses, "with the new key");
}

#[test]
fn a_change_may_take_several_messages() {
    let folder = tempfile::Builder::new().prefix("pintle-peers-large-").tempdir().expect("folder");
    if !has_wireguard(folder.path()) {
        return says_what_is_missing(folder.path());
    }
    let host = Space::new(folder.path(), "host");
    Netlink::in_namespace(host.file.as_fd()).expect("socket").add_wireguard("large", 1420, 0).expect("link");
    let mut wireguard = WireGuard::in_namespace(host.file.as_fd()).expect("socket");
    let allowed: Vec<IpNet> = (0..3000_u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes()).into()).collect();
    let set = |n: u8, allowed: &[IpNet]| {
        PeerChange::Set(PeerSettings {
            key: PublicKey([n; 32]),
            endpoint: None,
            keepalive: Some(n.into()),
            allowed: allowed.into(),
        })
    };
    let peers = [set(1, &allowed[..2500]), set(2, &allowed[2500..]), set(3, &[])];
    let change = DeviceChange { replace_peers: true, peers: &peers, ..DeviceChange::default() };
    for _ in 0..2 {
        wireguard.set("large", &change).expect("set");
        let device = wireguard.get("large").expect("get");
        let told: Vec<(u16, usize)> = device.peers.iter().map(|peer| (peer.keepalive, peer.allowed.len())).collect();
        assert_eq!(told, [(1, 2500), (2, 500), (3, 0)]);
    }
    assert!(wireguard.get("nothing").expect_err("no link").is_not_found());
}
