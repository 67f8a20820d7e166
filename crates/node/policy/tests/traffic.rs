//! Sends real packets between pods and the outside, in network namespaces of their own, while policies come and go.

use pintle_fake_api::FakeApi;
use pintle_netlink::nft::Family;
use pintle_netlink::{Netlink, Peer, Veth, namespace};
use pintle_policy::{Config, Guard, NewPod, Policies};
use pintle_test_netns::Space;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Namespace, Pod};
use pintle_types::k8s::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Long enough for whatever should happen, short enough to wait for what should not.
const WAIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

trait Reach {
    fn connect(&self, to: &str) -> Result<TcpStream, ErrorKind>;

    /// Connects until the outcome is this one: refused ports are reached, and nothing answers what is dropped.
    fn until(&self, to: &str, reached: bool);
}

impl Reach for Space {
    fn connect(&self, to: &str) -> Result<TcpStream, ErrorKind> {
        let to: SocketAddr = to.parse().expect("address");
        self.inside(|| TcpStream::connect_timeout(&to, SHORT)).map_err(|error| error.kind())
    }

    fn until(&self, to: &str, reached: bool) {
        let deadline = Instant::now() + WAIT;
        loop {
            let result = self.connect(to);
            if (result.as_ref().err() != Some(&ErrorKind::TimedOut)) == reached {
                return;
            }
            assert!(Instant::now() < deadline, "{to} is reached: {} ({result:?})", !reached);
        }
    }
}

/// The node, its pods `a` and `b` of namespace `ns` at 10.42.0.2 and 3, and the machine outside at 192.0.2.2; also at
/// fd00:42::2 and 3 and 2001:db8::2.
struct World {
    node: Space,
    a: Space,
    b: Space,
    outside: Space,
    api: FakeApi,
    guard: Guard,
    stop: CancellationToken,
    policies: Option<JoinHandle<()>>,
}

impl World {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir();
        let space =
            |kind: &str| Space::new(&folder, &format!("pintle-policy-test-{}-{name}-{kind}", std::process::id()));
        let (node, a, b, outside) = (space("node"), space("a"), space("b"), space("outside"));
        for (far, link, near, address, six) in [
            (&a, "pod-a", "10.42.0.1/32", "10.42.0.2", "fd00:42::2"),
            (&b, "pod-b", "10.42.0.1/32", "10.42.0.3", "fd00:42::3"),
            (&outside, "wan", "192.0.2.1/32", "192.0.2.2", "2001:db8::2"),
        ] {
            node.inside(|| {
                let peer = Peer { name: "eth0", hardware: None, namespace: Some(far.file.as_fd()) };
                let pair = Veth { name: link, mtu: 1500, master: None, group: 0, peer };
                Netlink::open().expect("socket").add_veth(&pair).expect("pair");
            });
            let gateway = near.trim_end_matches("/32");
            node.run(&format!(
                "ip link set {link} up; ip addr add {near} dev {link}; ip route add {address} dev {link}
                 ip addr add fd00:42::1/128 dev {link} nodad; ip route add {six} dev {link}"
            ));
            far.run(&format!(
                "ip link set eth0 up; ip addr add {address}/32 dev eth0; ip route add {gateway} dev eth0 scope link
                 ip route add default via {gateway}
                 ip addr add {six}/128 dev eth0 nodad; ip route add fd00:42::1 dev eth0
                 ip route add default via fd00:42::1"
            ));
        }
        node.run("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let api = FakeApi::new();
        for name in ["ns", "other"] {
            put::<Namespace>(&api, json!({"metadata": {"name": name, "labels": {"name": name}}}));
        }
        for (name, address) in [("a", "10.42.0.2"), ("b", "10.42.0.3")] {
            put::<Pod>(&api, pod(name, Some(address)));
        }
        let mut world =
            Self { node, a, b, outside, api, guard: Guard::default(), stop: CancellationToken::new(), policies: None };
        world.policies = Some(world.start());
        world
    }

    fn start(&self) -> JoinHandle<()> {
        let (client, guard, stop) = (self.api.client(), self.guard.clone(), self.stop.clone());
        let inside = self.node.file.try_clone().expect("descriptor");
        std::thread::spawn(move || {
            let run = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
                runtime.block_on(async {
                    let config = Config { node_name: "node".into(), families: vec![Family::Ip, Family::Ip6] };
                    Policies::open(config, client, guard).expect("open").run(stop).await.expect("run");
                });
            };
            namespace::enter(inside.as_fd(), run).expect("enter");
        })
    }

    fn policy(&self, name: &str, spec: Value) {
        put::<NetworkPolicy>(&self.api, json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec}));
    }

    fn watches(&self) -> Vec<String> {
        let asked = self.api.take_requests();
        asked.into_iter().map(|asked| asked.resource).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.policies.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the policies' thread failed");
        }
    }
}

fn put<K: Kind>(api: &FakeApi, value: Value) {
    api.put(&K::from_value(value).expect("an object"));
}

fn pod(name: &str, address: Option<&str>) -> Value {
    let six = address.map(|address| address.replace("10.42.0.", "fd00:42::"));
    let all: Vec<Value> = address.into_iter().chain(six.as_deref()).map(|ip| json!({"ip": ip})).collect();
    json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "labels": {"app": name}},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": all},
    })
}

#[test]
fn packets_pass_or_are_dropped_as_policies_say() {
    let world = World::new("packets");
    let listener = world.b.inside(|| TcpListener::bind("0.0.0.0:8080").expect("bind"));
    world.outside.until("10.42.0.3:8080", true);
    let (open, _) = (world.a.connect("10.42.0.3:8080").expect("open"), listener.accept().expect("accept"));

    let b = json!({"matchLabels": {"app": "b"}});
    world.policy("closed", json!({"podSelector": b}));
    world.outside.until("10.42.0.3:8080", false);
    world.a.until("10.42.0.3:8080", false);
    world.node.until("10.42.0.3:8080", true);
    world.b.until("10.42.0.3:8080", true);
    world.b.until("192.0.2.2:9", true);
    drop(open);

    world.policy("web", json!({"podSelector": b, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": "http"}]},
        {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}], "ports": [{"port": 9000, "endPort": 9010}]},
    ]}));
    world.a.until("10.42.0.3:8080", true);
    world.a.until("10.42.0.3:9005", false);
    world.outside.until("10.42.0.3:9000", true);
    world.outside.until("10.42.0.3:9010", true);
    world.outside.until("10.42.0.3:9011", false);
    world.outside.until("10.42.0.3:8080", false);

    world
        .policy("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": b}]}]}));
    world.a.until("192.0.2.2:9", false);
    world.a.until("10.42.0.3:8080", true);
    world.b.until("10.42.0.2:80", false);
}

#[test]
fn packets_of_the_other_family_pass_or_are_dropped_as_well() {
    let world = World::new("six");
    world.outside.until("[fd00:42::3]:8080", true);
    let b = json!({"matchLabels": {"app": "b"}});
    world.policy("closed", json!({"podSelector": b}));
    world.outside.until("[fd00:42::3]:8080", false);
    world.a.until("[fd00:42::3]:8080", false);
    world.node.until("[fd00:42::3]:8080", true);
    world.b.until("[fd00:42::3]:8080", true);

    world.policy("web", json!({"podSelector": b, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": "http"}]},
        {"from": [{"ipBlock": {"cidr": "2001:db8::/64", "except": ["2001:db8::8000/113"]}}], "ports": [{"port": 9000}]},
    ]}));
    world.a.until("[fd00:42::3]:8080", true);
    world.a.until("10.42.0.3:8080", true);
    world.a.until("[fd00:42::3]:9000", false);
    world.outside.until("[fd00:42::3]:9000", true);
    world.outside.until("10.42.0.3:9000", false);
    world.outside.until("[fd00:42::3]:8080", false);

    let to = json!([{"ipBlock": {"cidr": "fd00:42::/64"}}]);
    world.policy("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to}]}));
    world.a.until("[2001:db8::2]:9", false);
    world.a.until("[fd00:42::3]:8080", true);
    world.a.until("10.42.0.3:8080", false);
}

#[test]
fn answers_to_datagrams_pass_and_new_ones_do_not() {
    let world = World::new("datagrams");
    let bind = |space: &Space| {
        let socket = space.inside(|| UdpSocket::bind("0.0.0.0:5353").expect("bind"));
        socket.set_read_timeout(Some(SHORT)).expect("timeout");
        socket
    };
    let (a, b) = (bind(&world.a), bind(&world.b));
    let to_b = json!({"podSelector": {"matchLabels": {"app": "b"}}});
    world.policy(
        "a",
        json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress", "Egress"],
        "egress": [{"to": [to_b], "ports": [{"protocol": "UDP", "port": 5353}]}]}),
    );
    world.outside.until("10.42.0.2:80", false);
    let mut buffer = [0; 8];
    b.send_to(b"new", "10.42.0.2:5353").expect("send");
    assert!(a.recv_from(&mut buffer).is_err(), "a is closed");
    a.send_to(b"ask", "10.42.0.3:5353").expect("send");
    assert_eq!(b.recv_from(&mut buffer).expect("allowed").0, 3);
    b.send_to(b"answer", "10.42.0.2:5353").expect("send");
    assert_eq!(a.recv_from(&mut buffer).expect("an answer").0, 6);
}

#[test]
fn a_cluster_without_policies_pays_nothing() {
    let world = World::new("nothing");
    let b = json!({"podSelector": {"matchLabels": {"app": "b"}}});
    world.outside.until("10.42.0.3:8080", true);
    assert!(world.watches().iter().all(|path| path.ends_with("networkpolicies")), "only policies are watched");
    assert_eq!(world.node.run("nft list ruleset"), "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let admitted = runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(1), world.guard.admit(NewPod::default())).await });
    admitted.expect("without policies nobody waits");
    world.policy("closed", b);
    world.outside.until("10.42.0.3:8080", false);
    let watched = world.watches();
    assert!(
        watched.iter().any(|path| path.ends_with("/pods")) && watched.iter().any(|path| path.ends_with("/namespaces"))
    );
    world.api.remove::<NetworkPolicy>("ns", "closed");
    world.outside.until("10.42.0.3:8080", true);
    assert_eq!(world.node.run("nft list ruleset"), "");
}

#[test]
fn a_new_pod_is_guarded_before_it_starts() {
    let world = World::new("guard");
    let c = json!({"matchLabels": {"app": "c"}});
    world.policy("closed", json!({"podSelector": c}));
    world.policy("b", json!({"podSelector": {"matchLabels": {"app": "b"}}}));
    world.outside.until("10.42.0.3:8080", false);
    world.node.run("ip route add 10.42.0.4 dev pod-a");
    world.a.run("ip addr add 10.42.0.4/32 dev eth0");
    world.outside.until("10.42.0.4:80", true);
    let new = NewPod {
        namespace: "ns".into(),
        name: "c".into(),
        uid: "c".into(),
        labels: [("app".to_owned(), "c".to_owned())].into(),
        addresses: vec!["10.42.0.4".parse().expect("address")],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let soon = Duration::from_secs(1);
    let admitted = runtime.block_on(async { tokio::time::timeout(soon, world.guard.admit(new)).await });
    admitted.expect("nobody waits for longer than the kernel needs");
    assert_eq!(world.outside.connect("10.42.0.4:80").expect_err("dropped"), ErrorKind::TimedOut);
    // The API server hears of the pod, and later of its address: it is guarded all the time.
    put::<Pod>(&world.api, pod("c", None));
    put::<Pod>(&world.api, pod("c", Some("10.42.0.4")));
    world.policy("closed", json!({"podSelector": c, "ingress": [{"ports": [{"port": 80}]}]}));
    world.outside.until("10.42.0.4:80", true);
    assert_eq!(world.outside.connect("10.42.0.4:81").expect_err("dropped"), ErrorKind::TimedOut);
}

#[test]
fn a_table_that_somebody_flushed_is_replaced_with_the_next_change() {
    let world = World::new("flushed");
    world.policy("closed", json!({"podSelector": {"matchLabels": {"app": "b"}}}));
    world.outside.until("10.42.0.3:8080", false);
    world.node.run("nft flush ruleset");
    world.outside.until("10.42.0.3:8080", true);
    world.policy("more", json!({"podSelector": {"matchLabels": {"app": "a"}}}));
    world.outside.until("10.42.0.3:8080", false);
    world.outside.until("10.42.0.2:8080", false);
}
