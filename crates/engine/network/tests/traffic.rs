//! Sends real traffic through a bridge network, each test in network namespaces of its own.

use pintle_netlink::{Netlink, Peer, Veth};
use pintle_network::{Attachment, Bandwidth, BridgeNetwork, Config, Error, HostPort, Protocol};
use pintle_test_netns::Space;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(5);

/// A host with its network, and a machine outside that it is connected to.
struct World {
    host: Space,
    outside: Space,
    folder: Folder,
}

/// Goes last, when everything in it has gone.
struct Folder(PathBuf);

impl std::ops::Deref for Folder {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.join("state")).ok();
        std::fs::remove_dir(&self.0).expect("nothing else is left in the folder");
    }
}

impl World {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pintle-network-test-{}-{name}", std::process::id()));
        let folder = Folder(folder);
        let host = Space::new(&folder, "host");
        let outside = Space::new(&folder, "outside");
        host.inside(|| {
            let mut netlink = Netlink::open().expect("socket");
            let peer = Peer { name: "wan", hardware: None, namespace: Some(outside.file.as_fd()) };
            netlink.add_veth(&Veth { name: "wan", mtu: 1500, master: None, group: 0, peer }).expect("pair");
        });
        host.run("ip addr add 192.0.2.1/24 dev wan");
        outside.run("ip link set wan up && ip addr add 192.0.2.2/24 dev wan");
        Self { host, outside, folder }
    }

    fn config(&self, subnet: &str) -> Config {
        Config {
            bridge: "pintle0".into(),
            pod_subnets: subnet.split(',').map(|one| one.parse().expect("subnet")).collect(),
            cluster_subnets: ["10.42.0.0/16", "fd00:42::/56"].map(|net| net.parse().expect("net")).into(),
            translated_subnets: ["10.43.0.0/16", "fd00:43::/112"].map(|net| net.parse().expect("net")).into(),
            state_dir: self.folder.join("state"),
            mtu: 1500,
        }
    }

    fn open(&self) -> BridgeNetwork {
        self.host.inside(|| BridgeNetwork::open(self.config("10.42.0.0/24"))).expect("open")
    }

    fn setup(&self, network: &BridgeNetwork, id: &str, ports: &[HostPort]) -> (Space, Attachment) {
        let space = Space::new(&self.folder, id);
        let attachment = self.host.inside(|| network.setup(id, &space.path, ports)).expect("setup");
        (space, attachment)
    }

    fn links(&self) -> String {
        self.host.run("ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort | tr '\\n' ' '")
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn port(host_ip: Option<&str>, host_port: u16) -> HostPort {
    HostPort { protocol: Protocol::Tcp, host_ip: host_ip.map(address), host_port, sandbox_port: 8080 }
}

#[test]
fn sandboxes_reach_each_other_the_host_and_the_outside() {
    let world = World::new("reach");
    let network = world.open();
    let (a, given) = world.setup(&network, "a", &[]);
    let (b, _) = world.setup(&network, "b", &[]);
    assert_eq!(given.addresses, [address("10.42.0.2")]);
    assert_eq!((given.gateway, given.mac.as_str()), (address("10.42.0.1"), "0a:58:0a:2a:00:02"));
    assert_eq!(world.host.inside(|| network.setup("a", &a.path, &[])).expect("again"), given);
    assert_eq!(network.attachment("a"), Some(given));
    b.serve("0.0.0.0:8080");
    world.host.serve("0.0.0.0:9000");
    world.outside.serve("0.0.0.0:9000");

    assert_eq!(a.call("10.42.0.3:8080", WAIT).expect("its neighbour"), address("10.42.0.2"));
    assert_eq!(a.call("10.42.0.1:9000", WAIT).expect("the host"), address("10.42.0.2"));
    assert_eq!(world.host.call("10.42.0.3:8080", WAIT).expect("from the host"), address("10.42.0.1"));
    assert_eq!(a.call("192.0.2.2:9000", WAIT).expect("the outside"), address("192.0.2.1"), "masqueraded");
    assert!(world.host.run("ip -d link show type veth").contains("hairpin on"));
    let status = world.host.inside(|| network.status()).expect("status");
    assert_eq!((status.addresses_used, status.addresses_total), (2, 253));

    world.host.inside(|| {
        network.teardown("a").expect("teardown");
        network.teardown("a").expect("again");
        network.remove_all().expect("removed");
        network.remove_all().expect("again");
    });
    assert_eq!(world.links(), "lo wan ");
    assert_eq!(world.host.run("nft list ruleset"), "");
    assert!(!world.folder.join("state").exists());
    assert_eq!(world.host.run("ip route | grep -v 192.0.2 || true"), "");
}

#[test]
fn ports_of_the_host_lead_to_sandboxes() {
    let world = World::new("ports");
    let network = world.open();
    let (a, _) = world.setup(
        &network,
        "a",
        &[port(None, 30001), port(Some("192.0.2.1"), 30002), port(Some("127.0.0.1"), 30003)],
    );
    let (b, _) = world.setup(&network, "b", &[]);
    a.serve("0.0.0.0:8080");

    assert_eq!(
        world.outside.call("192.0.2.1:30001", WAIT).expect("outside"),
        address("192.0.2.2"),
        "the client is seen"
    );
    assert_eq!(world.outside.call("192.0.2.1:30002", WAIT).expect("one address"), address("192.0.2.2"));
    assert!(world.outside.call("192.0.2.1:30003", WAIT).is_err(), "only on loopback");
    assert_eq!(world.host.call("127.0.0.1:30001", WAIT).expect("loopback"), address("10.42.0.1"));
    assert_eq!(world.host.call("127.0.0.1:30003", WAIT).expect("loopback only"), address("10.42.0.1"));
    assert!(world.host.call("127.0.0.1:30002", WAIT).is_err());
    assert_eq!(b.call("192.0.2.1:30001", WAIT).expect("a neighbour"), address("10.42.0.3"));
    assert_eq!(a.call("192.0.2.1:30001", WAIT).expect("itself"), address("10.42.0.1"));

    let c = Space::new(&world.folder, "c");
    let taken =
        world.host.inside(|| network.setup("c", &c.path, &[port(Some("192.0.2.1"), 30001)])).expect_err("taken");
    assert_eq!(taken.to_string(), "host port 30001/TCP is in use by sandbox a");
    assert_eq!(network.attachment("c"), None);
    world.host.inside(|| network.teardown("a")).expect("teardown");
    assert!(world.outside.call("192.0.2.1:30001", WAIT).is_err(), "nobody answers any more");
    world.host.inside(|| network.setup("c", &c.path, &[port(None, 30001)])).expect("free again");
    c.serve("0.0.0.0:8080");
    assert!(world.outside.call("192.0.2.1:30001", WAIT).is_ok());
    world.host.inside(|| network.remove_all()).expect("removed");
}

#[test]
fn sandboxes_of_two_families_have_everything_twice() {
    let world = World::new("dual");
    world.host.run("ip addr add 2001:db8::1/64 dev wan nodad");
    world.outside.run("ip addr add 2001:db8::2/64 dev wan nodad");
    let open = || world.host.inside(|| BridgeNetwork::open(world.config("10.42.0.0/24,fd00:42::/64"))).expect("open");
    let network = open();
    let ports = [port(None, 30001), port(Some("2001:db8::1"), 30002), port(Some("0.0.0.0"), 30003)];
    let (a, given) = world.setup(&network, "a", &ports);
    let (b, _) = world.setup(&network, "b", &[]);
    assert_eq!(given.addresses, ["10.42.0.2", "fd00:42::2"].map(address));
    for space in [&a, &b] {
        space.serve("[::]:8080");
    }
    world.host.serve("[::]:9000");
    world.outside.serve("[::]:9000");

    assert_eq!(a.call("[fd00:42::3]:8080", WAIT).expect("its neighbour"), address("fd00:42::2"));
    assert_eq!(a.call("[fd00:42::1]:9000", WAIT).expect("the host"), address("fd00:42::2"));
    assert_eq!(world.host.call("[fd00:42::3]:8080", WAIT).expect("from the host"), address("fd00:42::1"));
    assert_eq!(a.call("[2001:db8::2]:9000", WAIT).expect("the outside"), address("2001:db8::1"), "masqueraded");
    assert_eq!(world.outside.call("[2001:db8::1]:30001", WAIT).expect("outside"), address("2001:db8::2"));
    assert_eq!(world.outside.call("[2001:db8::1]:30002", WAIT).expect("one address"), address("2001:db8::2"));
    assert!(world.outside.call("[2001:db8::1]:30003", WAIT).is_err(), "only of the other family");
    assert!(world.outside.call("192.0.2.1:30003", WAIT).is_ok());
    assert!(world.outside.call("192.0.2.1:30002", WAIT).is_err());
    assert_eq!(b.call("[2001:db8::1]:30001", WAIT).expect("a neighbour"), address("fd00:42::3"));
    assert_eq!(a.call("[2001:db8::1]:30001", WAIT).expect("itself"), address("fd00:42::1"));
    assert!(world.host.run("ip -6 route").contains("fd00:43::/112 dev pintle0"), "services have a route");

    drop(network);
    let network = open();
    assert_eq!(network.attachment("a").as_ref(), Some(&given), "a restart keeps it");
    let (_c, next) = world.setup(&network, "c", &[]);
    assert_eq!(next.addresses, ["10.42.0.4", "fd00:42::4"].map(address));
    world.host.inside(|| network.teardown("a")).expect("teardown");
    assert!(world.outside.call("[2001:db8::1]:30001", WAIT).is_err(), "nobody answers any more");
    world.host.inside(|| network.remove_all()).expect("removed");
    assert_eq!(world.links(), "lo wan ");
    assert_eq!(world.host.run("nft list ruleset"), "");
}

#[test]
fn a_flushed_table_comes_back_with_the_next_port() {
    let world = World::new("flushed");
    let network = world.open();
    let (a, _) = world.setup(&network, "a", &[port(None, 30001)]);
    a.serve("0.0.0.0:8080");
    world.host.run("nft flush ruleset");
    let (_b, _) = world.setup(&network, "b", &[port(None, 30002)]);
    assert!(world.outside.call("192.0.2.1:30001", WAIT).is_ok());
    world.host.run("nft flush ruleset");
    world.host.inside(|| network.teardown("b")).expect("teardown");
    assert!(world.outside.call("192.0.2.1:30001", WAIT).is_ok());
    world.host.inside(|| network.remove_all()).expect("removed");
}

#[test]
fn a_restart_keeps_the_living_and_frees_the_dead() {
    let world = World::new("restart");
    let network = world.open();
    let (a, given) = world.setup(&network, "a", &[port(None, 30001)]);
    let (_b, _) = world.setup(&network, "b", &[]);
    a.serve("0.0.0.0:8080");
    drop(network);
    std::fs::write(world.folder.join("state/broken.json"), "{").expect("write");
    world.host.run("ip addr add 10.9.9.1/24 dev pintle0; ip addr add 10.43.0.10/32 dev pintle0");

    let network = world.open();
    assert_eq!(network.attachment("a").as_ref(), Some(&given));
    world.host.inside(|| network.retain(&["a".into()])).expect("retain");
    assert_eq!(network.attachment("b"), None);
    let addresses = world.host.run("ip -4 -br addr show pintle0");
    assert!(addresses.contains("10.42.0.1/24") && addresses.contains("10.43.0.10/32"), "{addresses}");
    assert!(!addresses.contains("10.9.9.1"), "the gateway of another subnet is gone: {addresses}");
    assert_eq!(world.host.run("ip -br link show type veth master pintle0 | wc -l").trim(), "1");
    assert!(world.outside.call("192.0.2.1:30001", WAIT).is_ok(), "its port still leads there");
    let (_c, next) = world.setup(&network, "c", &[]);
    assert_eq!(next.addresses, [address("10.42.0.4")], "the address that has just come back is not given at once");
    world.host.inside(|| network.remove_all()).expect("removed");
}

#[test]
fn when_addresses_run_out_it_says_so_and_leaves_nothing() {
    let world = World::new("exhausted");
    let network = world.host.inside(|| BridgeNetwork::open(world.config("10.42.0.0/29"))).expect("open");
    let spaces: Vec<_> = (0..5).map(|n| world.setup(&network, &format!("s{n}"), &[])).collect();
    let extra = Space::new(&world.folder, "extra");
    let error = world.host.inside(|| network.setup("extra", &extra.path, &[])).expect_err("no more");
    assert!(matches!(error, Error::Exhausted { used: 5, .. }), "{error}");
    let missing =
        world.host.inside(|| network.setup("extra", Path::new("/nowhere/ns"), &[])).expect_err("no such file");
    assert!(missing.to_string().contains("network namespace /nowhere/ns: open"), "{missing}");
    assert!(world.host.inside(|| network.setup("../x", &extra.path, &[])).is_err());
    world.host.inside(|| network.teardown("s0")).expect("teardown");
    world.host.inside(|| network.setup("extra", &extra.path, &[])).expect("one is free");
    world.host.inside(|| network.remove_all()).expect("removed");
    assert_eq!(world.links(), "lo wan ");
    drop(spaces);
}

#[test]
fn a_bridge_that_is_something_else_is_refused() {
    let world = World::new("other");
    world.host.run("ip link add pintle0 type veth peer name other");
    let error = world.host.inside(|| BridgeNetwork::open(world.config("10.42.0.0/24"))).expect_err("not a bridge");
    assert!(error.to_string().contains("is not a bridge but \"veth\""), "{error}");
}

#[test]
fn many_at_the_same_time_get_one_address_each() {
    let world = World::new("parallel");
    let network = world.open();
    let spaces: Vec<_> = (0..24).map(|n| Space::new(&world.folder, &format!("p{n}"))).collect();
    let mut given: Vec<IpAddr> = thread::scope(|scope| {
        let one = |(n, space): (usize, &Space)| {
            let (id, path, network, host) = (format!("p{n}"), space.path.clone(), &network, &world.host);
            scope.spawn(move || {
                host.inside(|| {
                    let address =
                        network.setup(&id, &path, &[port(None, 31000 + n as u16)]).expect("setup").addresses[0];
                    // Half of them go at once.
                    if n % 2 == 1 {
                        network.teardown(&id).expect("teardown");
                    }
                    (n, address)
                })
            })
        };
        let threads: Vec<_> = spaces.iter().enumerate().map(one).collect();
        let given = threads.into_iter().map(|thread| thread.join().expect("join"));
        given.filter(|(n, _)| n % 2 == 0).map(|(_, address)| address).collect()
    });
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 12);
    let status = world.host.inside(|| network.status()).expect("status");
    assert_eq!(status.addresses_used, 12);
    let ports = world.host.run("nft list map ip pintle_pod host-ports | grep -o 'tcp \\. 31[0-9]* ' | wc -l");
    assert_eq!(ports.trim(), "12");
    world.host.inside(|| network.remove_all()).expect("removed");
    assert_eq!(world.links(), "lo wan ");
}

#[test]
fn a_sandbox_is_as_fast_as_it_may_be() {
    let world = World::new("bandwidth");
    let network = world.open();
    let (space, attachment) = world.setup(&network, "slow", &[]);
    let limits = Bandwidth { receive: Some(1_000_000), send: Some(500_000) };
    world.host.inside(|| network.limit("slow", &space.path, limits)).expect("limited");
    world.host.inside(|| network.limit("slow", &space.path, limits)).expect("again");
    let outer = world.host.run(&format!("tc qdisc show dev {}", attachment.host_interface));
    assert!(outer.contains("tbf") && outer.contains("rate 8Mbit"), "{outer}");
    assert!(space.run("tc qdisc show dev eth0").contains("rate 4Mbit"));
    let listener = space.inside(|| TcpListener::bind("0.0.0.0:0")).expect("bind");
    let port = listener.local_addr().expect("address").port();
    let reading = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        std::io::copy(&mut stream, &mut std::io::sink()).expect("read")
    });
    let begun = std::time::Instant::now();
    let to = SocketAddr::new(attachment.addresses[0], port);
    let mut stream = world.host.inside(|| TcpStream::connect_timeout(&to, WAIT)).expect("connect");
    stream.write_all(&vec![0; 600_000]).expect("write");
    drop(stream);
    assert_eq!(reading.join().expect("join"), 600_000);
    let needed = begun.elapsed();
    assert!(needed > Duration::from_millis(300), "600 kB less a burst of 100 kB at 1 MB a second came in {needed:?}");
    assert!(network.limit("nobody", &space.path, limits).is_err());
}
