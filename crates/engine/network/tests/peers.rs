//! Two hosts on one link whose sandboxes reach each other, in network namespaces of their own.

use ipnet::IpNet;
use pintle_netlink::{Netlink, Peer, Veth};
use pintle_network::{Backend, BridgeNetwork, Config, Peers, PeersConfig, sandbox_mtu};
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
    peers: Peers,
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("range")).collect()
}

fn cluster() -> Vec<IpNet> {
    nets(&["10.42.0.0/16", "fd00:42::/56"])
}

fn peers(backend: Backend, own: &[IpNet], node: &[IpAddr]) -> Peers {
    let (own, node) = (own.to_vec(), node.to_vec());
    Peers::open(PeersConfig { backend, device: "pods-vx".into(), cluster: cluster(), own, node }).expect("peers")
}

fn node(folder: &Path, number: u8, host: Space, backend: Backend) -> Node {
    let sandbox = Space::new(folder, &format!("sandbox-{number}"));
    let ips: Vec<IpAddr> = [format!("192.168.5.{number}"), format!("fd05::{number}")]
        .iter()
        .map(|ip| ip.parse().expect("address"))
        .collect();
    let subnets = nets(&[&format!("10.42.{number}.0/24"), &format!("fd00:42:0:{number}::/64")]);
    let sandbox_path = sandbox.path.clone();
    let (addresses, peers) = host.inside(|| {
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
        (attachment.addresses, peers(backend, &subnets, &ips))
    });
    serve(&sandbox);
    Node { host, sandbox, addresses, subnets, ips, peers }
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
    one.peers.set(&two.subnets, &two.ips).expect("set");
    two.peers.set(&one.subnets, &one.ips).expect("set");
    reach_all(&one.sandbox, &two.addresses, "sandboxes meet");
    let link = one.sandbox.run("ip link show dev eth0");
    assert!(link.contains(&format!("mtu {mtu} ")), "{link}");
    reach_all(&one.host, &two.addresses, "a host reaches a sandbox of the other");
    // Another run of the first host: what it finds goes on working, and what is stale goes.
    let stale = nets(&["10.42.9.0/24", "fd00:42:0:9::/64"]);
    one.peers.set(&stale, &two.ips).expect("set");
    let again = one.host.inside(|| peers(backend, &one.subnets, &one.ips));
    reach_all(&one.sandbox, &two.addresses, "adopted");
    again.set(&two.subnets, &two.ips).expect("set");
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
    two.host.inside(|| Peers::remove_all("pods-vx", &cluster())).expect("remove all");
    let left = two.host.run("ip route; ip -6 route; ip link");
    for gone in ["10.42.1.0", "fd00:42:0:1:", "pods-vx"] {
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
