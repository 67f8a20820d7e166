//! Sends real traffic between containers, hosts and machines outside, each test in network namespaces of its own.

use pintle_docker::model::{EndpointIpam, EndpointSettings};
use pintle_docker::networks::{
    Attach, Attached, Config, CreateRequest, Ipam, IpamRange, Networks, PortRequest, Protocol,
};
use pintle_netlink::{Netlink, Peer, Veth};
use pintle_test_netns::Space;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(5);
/// Long enough for an answer on this machine, short enough to wait for one that must not come.
const SHORT: Duration = Duration::from_millis(400);

trait Reach {
    fn reaches(&self, to: &str) -> bool;
    fn is_kept_from(&self, to: &str) -> bool;
}

impl Reach for Space {
    fn reaches(&self, to: &str) -> bool {
        self.call(to, WAIT).is_ok()
    }

    fn is_kept_from(&self, to: &str) -> bool {
        self.call(to, SHORT).is_err()
    }
}

struct World {
    runtime: tokio::runtime::Runtime,
    networks: Arc<Networks>,
    host: Space,
    outside: Space,
    containers: Vec<(String, Space)>,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let host = Space::new(folder.path(), "host");
        let outside = Space::new(folder.path(), "outside");
        host.inside(|| {
            let mut netlink = Netlink::open().expect("socket");
            let peer = Peer { name: "wan", hardware: None, namespace: Some(outside.file.as_fd()) };
            netlink.add_veth(&Veth { name: "wan", mtu: 1500, master: None, group: 0, peer }).expect("pair");
        });
        host.run("ip addr add 192.0.2.1/24 dev wan");
        outside.run("ip link set wan up && ip addr add 192.0.2.2/24 dev wan");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("tokio");
        let networks = open(&host, folder.path());
        Self { runtime, networks, host, outside, containers: Vec::new(), folder }
    }

    /// Works as the daemon would: in the host's namespace, within its runtime.
    fn daemon<T: Send>(&self, work: impl FnOnce(&Arc<Networks>) -> T + Send) -> T {
        self.host.inside(|| {
            let _entered = self.runtime.enter();
            work(&self.networks)
        })
    }

    fn network(&self, name: &str, subnet: &str, change: impl FnOnce(&mut CreateRequest) + Send) {
        let range = IpamRange { subnet: subnet.into(), ..IpamRange::default() };
        let ipam = Some(Ipam { config: Some(vec![range]), ..Ipam::default() });
        let mut request = CreateRequest { name: name.into(), ipam, ..CreateRequest::default() };
        change(&mut request);
        self.daemon(|networks| networks.create(&request)).expect("create");
    }

    fn start(&mut self, name: &str, networks: &[&str], ports: Vec<PortRequest>) -> Attached {
        let space = Space::new(self.folder.path(), name);
        let attach = Attach {
            container: name.repeat(12),
            name: name.into(),
            hostname: "same".into(),
            netns: space.path.clone(),
            networks: networks.iter().map(|n| ((*n).to_owned(), EndpointSettings::default())).collect(),
            ports,
            resolvers: Vec::new(),
        };
        self.containers.push((name.to_owned(), space));
        self.daemon(|networks| networks.attach(&attach)).expect("attach")
    }

    fn of(&self, name: &str) -> &Space {
        &self.containers.iter().find(|(n, _)| n == name).expect("started").1
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (name, _) in &self.containers {
            self.daemon(|networks| networks.release_all(&name.repeat(12))).expect("release");
        }
        self.host.inside(pintle_docker::networks::remove_leftovers).expect("leftovers");
        let left = self.host.run("ip -o link; cat /proc/net/nf_conntrack 2>/dev/null | head -0");
        assert!(!left.contains("br-") && !left.contains("veth"), "{left}");
    }
}

fn open(host: &Space, folder: &Path) -> Arc<Networks> {
    let config = Config {
        data_dir: folder.join("data"),
        run_dir: folder.join("run"),
        bridge: "dock0".into(),
        trusted: Vec::new(),
    };
    host.inside(|| Networks::open(config, pintle_clock::system())).expect("open")
}

fn tcp(host: &str, host_port: u16, port: u16) -> PortRequest {
    PortRequest { protocol: Protocol::Tcp, port, host_address: host.parse().ok(), host_ports: (host_port, host_port) }
}

#[test]
fn containers_reach_neighbours_and_the_outside_and_not_other_networks() {
    let mut world = World::new();
    world.network("n1", "10.77.0.0/24", |_| ());
    world.network("n2", "10.78.0.0/24", |r| r.internal = true);
    let first = world.start("a", &["bridge"], Vec::new());
    assert_eq!(first.addresses, ["172.17.0.2".parse::<IpAddr>().unwrap()]);
    assert!(first.resolver.is_none());
    world.start("b", &["bridge"], Vec::new());
    let joined = world.start("c", &["n1"], Vec::new());
    assert_eq!(joined.networks["n1"].dns_names.as_ref().unwrap(), &["c", "cccccccccccc", "same"]);
    assert_eq!((joined.networks["n1"].gateway.as_str(), joined.networks["n1"].ip_prefix_len), ("10.77.0.1", 24));
    world.start("d", &["n2"], Vec::new());
    for (name, address) in [("b", "172.17.0.3:80"), ("c", "10.77.0.2:80"), ("d", "10.78.0.2:80")] {
        world.of(name).serve(address);
    }
    world.outside.serve("192.0.2.2:99");
    assert_eq!(world.of("a").call("172.17.0.3:80", WAIT).unwrap().to_string(), "172.17.0.2");
    assert_eq!(world.of("a").call("192.0.2.2:99", WAIT).unwrap().to_string(), "192.0.2.1");
    assert!(world.host.reaches("10.77.0.2:80"));
    assert!(world.of("a").is_kept_from("10.77.0.2:80"));
    assert!(world.of("d").is_kept_from("192.0.2.2:99"));
    world.outside.run("ip route add 10.77.0.0/24 via 192.0.2.1");
    assert!(world.outside.is_kept_from("10.77.0.2:80"), "what is not published is not reached from outside");
}

/// Addresses of the ports' own would be of no use, and a cost for all others: with each, the kernel goes through more.
#[test]
fn the_hosts_ends_of_connections_have_no_addresses() {
    let mut world = World::new();
    let private = |r: &mut CreateRequest| {
        let icc = ("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned());
        r.options = Some([icc].into());
    };
    world.network("n1", "10.77.0.0/24", private);
    world.start("a", &["bridge"], Vec::new());
    world.start("b", &["n1"], Vec::new());
    let shown = world.host.run("ip -o -6 addr show; ip -6 route show table all | grep -v multicast");
    assert!(!shown.contains("veth"), "{shown}");
    let ports = world.host.run("ip -o -d link show type veth | grep master");
    let of = |flag: &str| ports.lines().filter(|port| port.contains(flag)).count();
    assert_eq!((of("state UP"), of("hairpin on"), of("isolated on"), of("isolated off")), (2, 2, 1, 1), "{ports}");
}

#[test]
fn a_bridge_that_somebody_took_down_or_away_is_raised_again() {
    let mut world = World::new();
    world.start("a", &["bridge"], Vec::new());
    for (name, away) in [("b", "ip link set dock0 down"), ("c", "ip link del dock0")] {
        world.host.run(away);
        world.start(name, &["bridge"], Vec::new());
        let server = world.host.serve("172.17.0.1:0");
        assert!(world.of(name).reaches(&server.to_string()), "{away}");
    }
}

#[test]
fn published_ports_lead_to_containers_from_everywhere() {
    let mut world = World::new();
    world.network("n1", "10.77.0.0/24", |_| ());
    let ports = vec![tcp("", 8080, 80), tcp("127.0.0.1", 8081, 80)];
    let web = world.start("a", &["bridge"], ports);
    let shown: Vec<String> = web.published.iter().map(|p| format!("{}:{}", p.host_address, p.host_port)).collect();
    assert_eq!(shown, ["0.0.0.0:8080", ":::8080", "127.0.0.1:8081"]);
    world.start("b", &["bridge"], Vec::new());
    world.start("c", &["n1"], Vec::new());
    world.of("a").serve("172.17.0.2:80");
    assert_eq!(world.outside.call("192.0.2.1:8080", WAIT).unwrap().to_string(), "192.0.2.2");
    assert!(world.host.reaches("192.0.2.1:8080") && world.host.reaches("127.0.0.1:8080"));
    assert!(world.host.reaches("127.0.0.1:8081") && world.outside.is_kept_from("192.0.2.1:8081"));
    for name in ["a", "b", "c"] {
        let called = world.of(name).call("192.0.2.1:8080", WAIT);
        assert!(called.is_ok(), "{name}: {called:?}");
    }
    assert!(world.of("b").is_kept_from("127.0.0.1:8081"));
    // Taken ports are refused, and given back with the container.
    let space = Space::new(world.folder.path(), "e");
    let mut attach = Attach {
        container: "e".repeat(12),
        name: "e".into(),
        netns: space.path.clone(),
        networks: vec![("bridge".into(), EndpointSettings::default())],
        ports: vec![tcp("", 8080, 81)],
        ..Attach::default()
    };
    let error = world.daemon(|networks| networks.attach(&attach)).expect_err("taken");
    assert!(error.message.ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{error}");
    let listener = world.host.inside(|| TcpListener::bind("0.0.0.0:8090")).unwrap();
    attach.ports = vec![tcp("", 8090, 81)];
    let error = world.daemon(|networks| networks.attach(&attach)).expect_err("taken");
    assert!(error.message.ends_with("failed to bind host port 0.0.0.0:8090/tcp: address already in use"), "{error}");
    drop(listener);
    assert_eq!(world.daemon(|networks| networks.inspect("bridge")).unwrap().endpoints.len(), 2);
    // What the machine's own table forbids stays forbidden.
    world.host.run("nft 'add table ip own; add chain ip own f { type filter hook forward priority 10; }; add rule ip own f tcp dport 80 drop'");
    assert!(world.outside.is_kept_from("192.0.2.1:8080"));
}

#[test]
fn names_are_resolved_among_neighbours() {
    let mut world = World::new();
    world.network("n1", "10.77.0.0/24", |_| ());
    let first = world.start("a", &["n1"], Vec::new());
    assert_eq!(first.resolver.unwrap().to_string(), "127.0.0.11");
    world.start("web", &["n1"], Vec::new());
    let ask = |space: &Space, name: &str| {
        let mut question = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(label.len() as u8);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        space.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(WAIT))?;
            socket.send_to(&question, "127.0.0.11:53")?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer)?;
            std::io::Result::Ok(answer[..length].to_vec())
        })
    };
    for name in ["web", "WEB", "web.n1", "webwebwebweb"] {
        let answer = ask(world.of("a"), name).expect(name);
        assert!(answer.ends_with(&[10, 77, 0, 3]), "{name}: {answer:?}");
    }
    // The daemon ends and begins anew: containers keep what they have, and names are answered again.
    let again = open(&world.host, world.folder.path());
    let old = std::mem::replace(&mut world.networks, again);
    drop(old);
    world.daemon(|networks| networks.retain(&["a".repeat(12), "web".repeat(12)])).expect("retain");
    assert!(ask(world.of("a"), "web").expect("answer").ends_with(&[10, 77, 0, 3]));
    world.daemon(|networks| networks.retain(&["a".repeat(12)])).expect("retain");
    assert_eq!(world.daemon(|networks| networks.inspect("n1")).unwrap().endpoints.len(), 1);
}

#[test]
fn bridges_of_networks_that_were_made_are_there_again() {
    let mut world = World::new();
    world.network("n1", "10.77.0.0/24", |_| ());
    let bridge = format!("br-{}", &world.networks.inspect("n1").expect("n1").id[..12]);
    world.host.run(&format!("ip link del {bridge}"));
    world.networks = open(&world.host, world.folder.path());
    world.daemon(|networks| networks.retain(&[])).expect("retain");
    let seen = world.host.run("ip -o addr");
    assert!(seen.contains(&bridge) && seen.contains("10.77.0.1/24"), "{seen}");
    assert!(!seen.contains("dock0"), "the network that is always there has no container yet: {seen}");
    world.daemon(|networks| networks.remove("n1")).expect("unused");
    assert!(!world.host.run("ip -o link").contains(&bridge));
}

#[test]
fn connections_come_and_go_while_a_container_runs() {
    let mut world = World::new();
    world.network("n1", "10.77.0.0/24", |_| ());
    world.network("n6", "fd00:6::/64", |r| r.enable_ipv6 = Some(true));
    world.start("a", &["bridge"], Vec::new());
    let id = "a".repeat(12);
    let wanted = EndpointSettings {
        ipam_config: Some(EndpointIpam { ipv4_address: "10.77.0.9".into(), ..EndpointIpam::default() }),
        ..EndpointSettings::default()
    };
    let got = world.daemon(|networks| networks.join(&id, "h", "n1", &wanted, &[])).expect("join");
    assert_eq!((got.ip_address.as_str(), got.mac_address.as_str()), ("10.77.0.9", "02:42:0a:4d:00:09"));
    let six = world.daemon(|networks| networks.join(&id, "h", "n6", &EndpointSettings::default(), &[])).expect("join");
    assert_eq!((six.global_ipv6_address.as_str(), six.ipv6_gateway.as_str()), ("fd00:6::2", "fd00:6::1"));
    let seen = world.of("a").run("ip -o addr; ip route; ip -6 route");
    assert!(seen.contains("eth1    inet 10.77.0.9/24") && seen.contains("default via 172.17.0.1 dev eth0"), "{seen}");
    assert!(seen.contains("default via fd00:6::1 dev eth2"), "{seen}");
    let twice = world.daemon(|networks| networks.join(&id, "h", "n1", &wanted, &[])).expect_err("twice");
    assert_eq!(twice.message, "endpoint with name a already exists in network n1");
    let used = world.daemon(|networks| networks.remove("n1")).expect_err("in use");
    assert!(
        used.message.starts_with("error while removing network: network n1 has active endpoints (name:\"a\" id:\"")
    );
    world.daemon(|networks| networks.leave(&id, "bridge")).expect("leave");
    let seen = world.of("a").run("ip -o addr; ip route");
    assert!(!seen.contains("eth0") && seen.contains("default via 10.77.0.1 dev eth1"), "{seen}");
    world.daemon(|networks| networks.leave(&id, "n1")).expect("leave");
    world.daemon(|networks| networks.remove("n1")).expect("unused");
    let error = world.daemon(|networks| networks.leave(&id, "bridge")).expect_err("left before");
    assert_eq!(error.status, 403);
}

#[test]
fn wrong_requests_are_refused_in_the_engines_words() {
    let world = World::new();
    let create = |change: &dyn Fn(&mut CreateRequest)| {
        let mut request = CreateRequest { name: "x".into(), ..CreateRequest::default() };
        change(&mut request);
        world.networks.create(&request).map_err(|e| (e.status, e.message)).expect_err("refused")
    };
    assert_eq!(create(&|r| r.driver = "nope".into()), (404, "plugin \"nope\" not found".into()));
    assert_eq!(create(&|r| r.name = "host".into()).0, 403);
    assert_eq!(create(&|r| r.driver = "overlay".into()).0, 503);
    assert_eq!(create(&|r| r.driver = "macvlan".into()).0, 501);
    world.network("n1", "10.77.0.0/24", |_| ());
    let subnet = |r: &mut CreateRequest| {
        let range = IpamRange { subnet: "10.77.0.128/25".into(), ..IpamRange::default() };
        r.ipam = Some(Ipam { config: Some(vec![range]), ..Ipam::default() });
    };
    let overlap = "invalid pool request: Pool overlaps with other one on this address space";
    assert_eq!(create(&subnet), (403, overlap.into()));
    assert_eq!(create(&|r| r.name = "n1".into()), (409, "network with name n1 already exists".into()));
    let message = world.networks.remove("bridge").expect_err("always there").message;
    assert_eq!(message, "bridge is a pre-defined network and cannot be removed");
    assert_eq!(world.networks.remove("nope").expect_err("not there").message, "network nope not found");
    let wanted = EndpointSettings {
        ipam_config: Some(EndpointIpam { ipv4_address: "10.1.1.1".into(), ..EndpointIpam::default() }),
        ..EndpointSettings::default()
    };
    assert_eq!(
        world.networks.check_settings("bridge", &wanted).expect_err("predefined").message,
        "invalid config for network bridge: invalid endpoint settings:\n* user specified IP address is supported on \
         user defined networks only\n* user specified IP address is supported only when connecting to networks with \
         user configured subnets"
    );
}
