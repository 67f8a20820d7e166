//! Tries the messages on the real kernel, each test in network namespaces of its own; `ip` and `nft` only look.

use pintle_netlink::nft::{
    Batch, ChainKind, Connection, Data, Family, Field, Hook, Key, Nftables, Policy, Register, Reject, Rule, Set,
    SetName, Verdict,
};
use pintle_netlink::{
    Bridge, HardwareAddress, LinkChange, Neighbor, Netlink, Peer, Port, Route, Scope, Veth, conntrack, namespace,
};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

/// A namespace that vanishes with the test.
struct Space {
    path: PathBuf,
    file: File,
}

impl Space {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pintle-netlink-test-{}-{name}", std::process::id()));
        namespace::create(&path).expect("namespaces need root");
        let file = namespace::open(&path).expect("just made");
        Self { path, file }
    }

    fn run(&self, command: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path.display()))
            .args(["sh", "-c", command])
            .output()
            .expect("nsenter is there");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        namespace::delete(&self.path).expect("delete");
        assert!(!self.path.exists());
    }
}

#[test]
fn a_bridge_and_a_pair_across_namespaces() {
    let (host, guest) = (Space::new("links-host"), Space::new("links-guest"));
    let mut netlink = Netlink::in_namespace(host.file.as_fd()).expect("socket");
    let hardware = HardwareAddress([2, 0, 0, 0, 0, 1]);
    netlink.add_bridge(&Bridge { name: "br0", mtu: 1400, hardware }).expect("bridge");
    let bridge = netlink.link("br0").expect("links").expect("there");
    assert_eq!((bridge.kind.as_str(), bridge.mtu, bridge.up, bridge.hardware), ("bridge", 1400, true, Some(hardware)));

    let inner = HardwareAddress([2, 0, 0, 0, 0, 2]);
    netlink
        .add_veth(&Veth {
            name: "outer",
            mtu: 1400,
            master: Some(bridge.index),
            group: 0,
            peer: Peer { name: "eth0", hardware: Some(inner), namespace: Some(guest.file.as_fd()) },
        })
        .expect("pair");
    let outer = netlink.link("outer").expect("links").expect("there");
    assert_eq!((outer.kind.as_str(), outer.master, outer.up), ("veth", Some(bridge.index), true));

    let mut inside = Netlink::in_namespace(guest.file.as_fd()).expect("socket");
    let eth0 = inside.link("eth0").expect("links").expect("there");
    assert_eq!((eth0.up, eth0.hardware), (false, Some(inner)));
    inside
        .set_link(
            eth0.index,
            &LinkChange { up: Some(true), name: Some("eth1"), mtu: Some(1300), ..LinkChange::default() },
        )
        .expect("renamed");
    assert!(guest.run("ip link show eth1").contains("mtu 1300"));

    netlink.delete_link_named("outer").expect("deleted");
    assert!(inside.link("eth1").expect("links").is_none(), "the other end goes with it");
    let error = netlink.delete_link_named("outer").expect_err("gone");
    assert!(error.is_not_found(), "{error}");
    let error = netlink.add_bridge(&Bridge { name: "br0", mtu: 1400, hardware }).expect_err("there already");
    assert!(error.is_exists(), "{error}");
    netlink.delete_link(bridge.index).expect("deleted");

    for name in ["one", "two"] {
        let peer = Peer { name: &format!("{name}-far"), hardware: None, namespace: None };
        netlink.add_veth(&Veth { name, mtu: 1500, master: None, group: 77, peer }).expect("pair");
    }
    netlink.delete_group(77).expect("deleted");
    assert_eq!(netlink.links().expect("links").len(), 1, "only the loopback is left");
    assert!(netlink.delete_group(77).expect_err("none is left").is_not_found());
}

/// Nothing is sent to a port's far end but what others send, and the bridge sees its carrier come once.
#[test]
fn a_port_comes_up_last_and_has_no_address_of_its_own() {
    let (host, guest) = (Space::new("port-host"), Space::new("port-guest"));
    let mut netlink = Netlink::in_namespace(host.file.as_fd()).expect("socket");
    netlink.add_bridge(&Bridge { name: "br0", mtu: 1500, hardware: HardwareAddress([2, 0, 0, 0, 0, 1]) }).expect("br");
    let bridge = netlink.link("br0").expect("links").expect("there").index;
    let peer = Peer { name: "eth0", hardware: None, namespace: Some(guest.file.as_fd()) };
    netlink.add_port(&Veth { name: "outer", mtu: 1500, master: Some(bridge), group: 7, peer }).expect("port");
    let outer = netlink.link("outer").expect("links").expect("there");
    assert_eq!((outer.master, outer.up), (Some(bridge), false));

    let mut inside = Netlink::in_namespace(guest.file.as_fd()).expect("socket");
    let eth0 = inside.link("eth0").expect("links").expect("there").index;
    inside.set_link(eth0, &LinkChange { up: Some(true), ..LinkChange::default() }).expect("up");
    netlink.raise_port("outer", Port { hairpin: true, isolated: false }).expect("raised");
    let shown = host.run("ip -d link show outer");
    assert!(
        ["state UP", "hairpin on", "isolated off", "state forwarding"].iter().all(|w| shown.contains(w)),
        "{shown}"
    );
    assert!(guest.run("ip link show eth0").contains("LOWER_UP"));
    let addresses = netlink.addresses().expect("addresses");
    assert!(addresses.iter().all(|a| a.link != outer.index), "{addresses:?}");
    netlink.raise_port("outer", Port { hairpin: false, isolated: true }).expect("again");
    let shown = host.run("ip -d link show outer");
    assert!(shown.contains("hairpin off") && shown.contains("isolated on"), "{shown}");
    let error = netlink.raise_port("nobody", Port::default()).expect_err("no such link");
    assert!(error.is_not_found(), "{error}");
}

/// A link whose packets are too small for IPv6 has none of its settings.
#[test]
fn a_port_without_ipv6_comes_up_too() {
    let (host, guest) = (Space::new("small-host"), Space::new("small-guest"));
    let mut netlink = Netlink::in_namespace(host.file.as_fd()).expect("socket");
    netlink.add_bridge(&Bridge { name: "br0", mtu: 1000, hardware: HardwareAddress([2, 0, 0, 0, 0, 1]) }).expect("br");
    let bridge = netlink.link("br0").expect("links").expect("there").index;
    let peer = Peer { name: "eth0", hardware: None, namespace: Some(guest.file.as_fd()) };
    netlink.add_port(&Veth { name: "outer", mtu: 1000, master: Some(bridge), group: 0, peer }).expect("port");
    netlink.raise_port("outer", Port { hairpin: true, isolated: true }).expect("raised");
    assert!(netlink.link("outer").expect("links").expect("there").up);
    assert!(host.run("ip -d link show outer").contains("hairpin on"));
}

#[test]
fn addresses_routes_and_neighbours() {
    let space = Space::new("addresses");
    let mut netlink = Netlink::in_namespace(space.file.as_fd()).expect("socket");
    netlink.add_bridge(&Bridge { name: "br0", mtu: 1500, hardware: HardwareAddress([2, 0, 0, 0, 0, 1]) }).expect("br");
    let link = netlink.link("br0").expect("links").expect("there").index;
    let net = "10.9.0.1/24".parse().expect("net");
    netlink.add_address(link, net).expect("address");
    netlink.add_address(link, "fd00::1/64".parse().expect("net")).expect("address");
    assert!(netlink.add_address(link, net).expect_err("twice").is_exists());
    assert!(netlink.addresses().expect("list").iter().any(|a| a.link == link && a.address == net));

    let route = Route {
        destination: "10.43.0.0/16".parse().expect("net"),
        gateway: None,
        link: Some(link),
        scope: Scope::Link,
        source: Some(net.addr()),
    };
    netlink.set_route(&route).expect("route");
    netlink.set_route(&route).expect("again");
    let default = Route {
        destination: "0.0.0.0/0".parse().expect("net"),
        gateway: Some([10, 9, 0, 9].into()),
        link: Some(link),
        scope: Scope::Universe,
        source: None,
    };
    netlink.set_route(&default).expect("default route");
    let routes = netlink.routes().expect("list");
    assert!(routes.contains(&route) && routes.contains(&default), "{routes:?}");
    assert!(space.run("ip route").contains("default via 10.9.0.9 dev br0"));
    netlink.delete_route(&route).expect("deleted");
    assert!(netlink.delete_route(&route).expect_err("gone").is_not_found());

    let hardware = HardwareAddress([2, 0, 0, 0, 0, 9]);
    let neighbor = Neighbor { link, address: [10, 9, 0, 9].into(), hardware };
    netlink.set_neighbor(&neighbor).expect("neighbour");
    assert!(netlink.neighbors().expect("list").contains(&neighbor));
    netlink.delete_neighbor(&neighbor).expect("deleted");
    netlink.delete_address(link, net).expect("deleted");
    assert!(netlink.delete_address(link, net).expect_err("gone").is_not_found());
}

#[test]
fn the_kernel_explains_a_refusal() {
    let space = Space::new("refusal");
    let mut netlink = Netlink::in_namespace(space.file.as_fd()).expect("socket");
    let route = Route {
        destination: "10.43.0.0/16".parse().expect("net"),
        gateway: Some([10, 1, 1, 1].into()),
        link: None,
        scope: Scope::Universe,
        source: None,
    };
    let error = netlink.set_route(&route).expect_err("no way to the gateway").to_string();
    assert!(error.contains("set route to 10.43.0.0/16") && error.contains("gateway"), "{error}");
    let error = netlink.delete_link_named("a-name-that-is-too-long").expect_err("too long").to_string();
    assert!(error.contains("15 bytes"), "{error}");
}

const R0: Register = Register::new(0);
const R1: Register = Register::new(1);
const R2: Register = Register::new(2);

fn base(batch: &mut Batch) {
    batch.replace_table();
    batch.add_chain("target");
    batch.add_base_chain("pre", ChainKind::Nat, Hook::Prerouting, -100, Policy::Accept);
    batch.add_base_chain("post", ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept);
    batch.add_base_chain("check", ChainKind::Filter, Hook::Prerouting, -90, Policy::Drop);
    let key = &[Field::Ipv4, Field::Protocol, Field::Port];
    batch.add_set("services", &Set { key, data: Data::Verdict, timeout_ms: None });
    batch.add_set("clients", &Set { key: &[Field::Ipv4], data: Data::Nothing, timeout_ms: Some(10_000) });
    let service = Key::new().address([10, 43, 0, 1].into()).protocol(6).port(443);
    batch.add_verdicts(SetName::Named("services"), [(service, &Verdict::Goto("target".into()))]);
    batch.add_rule(
        "pre",
        Rule::v4()
            .load_destination(R0)
            .load_protocol(R1)
            .load_destination_port(R2)
            .lookup_verdict(SetName::Named("services"), R0),
    );
}

#[test]
fn every_kind_of_rule_is_accepted_and_reads_as_meant() {
    let space = Space::new("rules");
    let mut nft = Nftables::in_namespace(space.file.as_fd()).expect("socket");
    let mut batch = Batch::new(Family::Ip, "t");
    base(&mut batch);
    let net = "10.42.0.0/16".parse().expect("net");
    batch.add_rule("post", Rule::v4().source_in(net, true).destination_in(net, false).masquerade().comment("out"));
    batch.add_rule(
        "post",
        Rule::v4().mark_has(0x4000, true).clear_mark_bits(0x4000).output_is("br0", false).masquerade(),
    );
    batch.add_rule("check", Rule::v4().connection_is(Connection::New, false).verdict(&Verdict::Accept));
    batch
        .add_rule("check", Rule::v4().input_is("br0", true).destination_is_local().counter().verdict(&Verdict::Return));
    batch.add_rule("check", Rule::v4().connection_is(Connection::Related, true).verdict(&Verdict::Accept));
    batch.add_rule("check", Rule::v4().protocol_is(17).destination_port_in(8000, 8010).verdict(&Verdict::Drop));
    batch.add_rule("check", Rule::v4().protocol_is(132).destination_port_in(9, 9).verdict(&Verdict::Drop));
    batch.add_rule("check", Rule::v4().protocol_is(6).reject(Reject::TcpReset));
    batch.add_rule("check", Rule::v4().connection_is(Connection::Translated, false).reject(Reject::PortUnreachable));
    let data = Data::Fields(&[Field::Ipv4, Field::Port]);
    let set = batch.add_anonymous_set(&Set { key: &[Field::Number], data, timeout_ms: None }, 2);
    let endpoint = |last| Key::new().address([10, 42, 0, last].into()).port(8080);
    batch.add_values(set, [(Key::new().number(0), endpoint(2)), (Key::new().number(1), endpoint(3))]);
    batch.add_rule("target", Rule::v4().source_is_local().set_mark_bits(0x4000));
    batch.add_rule("target", Rule::v4().load_source(R0).remember(SetName::Named("clients"), R0, 5_000));
    batch
        .add_rule("target", Rule::v4().load_random(R0, 2).lookup_into(set, R0, R1).translate_destination(R1, Some(R2)));
    nft.commit(batch).expect("accepted");

    let listing = space.run("nft list table ip t");
    for expected in [
        "type ipv4_addr . inet_proto . inet_service : verdict",
        "10.43.0.1 . tcp . 443 : goto target",
        "ip daddr . meta l4proto . th dport vmap @services",
        "ip saddr 10.42.0.0/16 ip daddr != 10.42.0.0/16 masquerade fully-random comment \"out\"",
        "oifname != \"br0\"",
        "fib daddr type local",
        "fib saddr type local",
        "reject with tcp reset",
        "update @clients { ip saddr timeout 5s }",
        "numgen random mod 2 map { 0 : 10.42.0.2 . 8080, 1 : 10.42.0.3 . 8080 }",
        "ct status ! dnat reject",
        "ct state related accept",
        "udp dport 8000-8010 drop",
        "sctp dport 9 drop",
        "type filter hook prerouting priority dstnat + 10; policy drop",
    ] {
        assert!(listing.contains(expected), "{expected:?} is missing in\n{listing}");
    }
    nft.remove_table(Family::Ip, "t").expect("removed");
    nft.remove_table(Family::Ip, "t").expect("removing nothing is fine");
    assert_eq!(space.run("nft list ruleset"), "");
}

#[test]
fn a_batch_is_all_or_nothing() {
    let space = Space::new("atomic");
    let mut nft = Nftables::in_namespace(space.file.as_fd()).expect("socket");
    let mut batch = Batch::new(Family::Ip, "t");
    base(&mut batch);
    nft.commit(batch).expect("accepted");
    let before = space.run("nft list ruleset");

    let mut batch = Batch::new(Family::Ip, "t");
    batch.flush_chain("pre");
    batch.delete_chain("no-such-chain");
    let error = nft.commit(batch).expect_err("refused");
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().contains("change nftables table ip t: delete chain no-such-chain"), "{error}");
    assert_eq!(space.run("nft list ruleset"), before);

    // What a change of one element does: the old value goes and the new one comes in the same instant.
    let key = Key::new().address([10, 43, 0, 1].into()).protocol(6).port(443);
    let mut batch = Batch::new(Family::Ip, "t");
    batch.delete_keys(SetName::Named("services"), [key]);
    batch.add_verdicts(SetName::Named("services"), [(key, &Verdict::Drop)]);
    batch.delete_chain("target");
    nft.commit(batch).expect("accepted");
    let listing = space.run("nft list ruleset");
    assert!(listing.contains("10.43.0.1 . tcp . 443 : drop") && !listing.contains("chain target"), "{listing}");
}

#[test]
fn tens_of_thousands_of_elements_fit_one_batch() {
    let space = Space::new("large");
    let mut nft = Nftables::in_namespace(space.file.as_fd()).expect("socket");
    let mut batch = Batch::new(Family::Ip, "t");
    base(&mut batch);
    let accept = Verdict::Accept;
    let keys = (0..40_000_u32)
        .map(|n| (Key::new().address((0x0a00_0000 + n).to_be_bytes().into()).protocol(6).port(80), &accept));
    batch.add_verdicts(SetName::Named("services"), keys);
    nft.commit(batch).expect("accepted");
    assert_eq!(space.run("nft list map ip t services | grep -o accept | wc -l").trim(), "40000");
}

#[test]
fn tracked_flows_are_found_and_deleted() {
    let space = Space::new("conntrack");
    let mut nft = Nftables::in_namespace(space.file.as_fd()).expect("socket");
    let mut batch = Batch::new(Family::Ip, "t");
    // Connections are tracked only where some rule asks about them.
    batch.add_table();
    batch.add_base_chain("out", ChainKind::Filter, Hook::Output, 0, Policy::Accept);
    batch.add_rule("out", Rule::v4().connection_is(Connection::New, true).counter());
    nft.commit(batch).expect("accepted");
    let (wanted, other) = namespace::enter(space.file.as_fd(), || {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let to = server.local_addr().expect("address");
        let send = || {
            let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
            client.send_to(b"x", to).expect("send");
            client.local_addr().expect("address").port()
        };
        (send(), send())
    })
    .expect("enter");
    let mut tracker = conntrack::Conntrack::in_namespace(space.file.as_fd()).expect("socket");
    let mut seen = Vec::new();
    let deleted = tracker
        .delete_where(|flow| {
            seen.push(flow.original.source_port);
            flow.original.protocol == 17 && flow.original.source_port == wanted
        })
        .expect("walk");
    assert_eq!(deleted, 1);
    assert!(seen.contains(&wanted) && seen.contains(&other), "{seen:?}");
    assert_eq!(tracker.delete_where(|flow| flow.original.source_port == wanted).expect("walk"), 0);
}

#[test]
fn a_namespace_is_not_made_over_a_file() {
    let space = Space::new("twice");
    let error = namespace::create(&space.path).expect_err("there already").to_string();
    assert!(error.contains("make the file that pins it"), "{error}");
    assert_eq!(space.run("ip -o link | wc -l").trim(), "1");
    assert!(space.run("ip link show lo").contains("UP"), "the loopback is up");
}
