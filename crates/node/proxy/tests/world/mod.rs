//! A node with pods and a machine outside, each in a network namespace of its own, and the objects of a cluster.

use ipnet::IpNet;
use pintle_netlink::{Netlink, Peer, Veth, namespace};
use pintle_proxy::{Config, Kernel, Objects, Proxy};
use pintle_types::k8s::api::core::v1::Service;
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for whatever should work, short enough to wait for what should not.
const WAIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(300);

/// A network namespace that vanishes with the test.
pub struct Space {
    path: PathBuf,
    pub file: File,
}

impl Space {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pintle-proxy-test-{}-{name}", std::process::id()));
        namespace::create(&path).expect("namespaces need root");
        Self { file: namespace::open(&path).expect("just made"), path }
    }

    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        namespace::enter(self.file.as_fd(), work).expect("enter")
    }

    pub fn run(&self, command: &str) -> String {
        self.inside(|| {
            let output = Command::new("sh").args(["-c", command]).output().expect("sh");
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// Answers TCP clients with its name and whom it sees, then repeats what they send; datagrams with its name.
    pub fn serve(&self, name: &str, port: u16) {
        let (listener, socket) = self.inside(|| {
            let address = ("::", port);
            (TcpListener::bind(address).expect("bind"), UdpSocket::bind(address).expect("bind"))
        });
        let greeting = name.to_owned();
        thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let greeting = format!("{greeting} {}\n", peer.ip().to_canonical());
                thread::spawn(move || {
                    let mut byte = [0];
                    let mut alive = stream.write_all(greeting.as_bytes()).is_ok();
                    while alive && matches!(stream.read(&mut byte), Ok(1)) {
                        alive = stream.write_all(&byte).is_ok();
                    }
                });
            }
        });
        let name = name.to_owned();
        thread::spawn(move || {
            let mut byte = [0];
            while let Ok((_, peer)) = socket.recv_from(&mut byte) {
                if socket.send_to(name.as_bytes(), peer).is_err() {
                    return;
                }
            }
        });
    }

    /// Connects, and reads who answers and whom it sees.
    pub fn open(&self, to: &str) -> std::io::Result<(TcpStream, String, IpAddr)> {
        self.connect(to, WAIT)
    }

    /// Like `open`, for what should get no answer at all.
    pub fn open_in_vain(&self, to: &str) -> std::io::ErrorKind {
        self.connect(to, SHORT).expect_err("no answer is expected").kind()
    }

    fn connect(&self, to: &str, wait: Duration) -> std::io::Result<(TcpStream, String, IpAddr)> {
        let to: SocketAddr = to.parse().expect("address");
        let mut stream = self.inside(|| TcpStream::connect_timeout(&to, wait))?;
        stream.set_read_timeout(Some(WAIT))?;
        let (mut line, mut byte) = (String::new(), [0]);
        while stream.read(&mut byte)? == 1 && byte != [b'\n'] {
            line.push(char::from(byte[0]));
        }
        let (name, peer) = line.split_once(' ').expect("a name and an address");
        let found = (name.to_owned(), peer.parse().expect("address"));
        Ok((stream, found.0, found.1))
    }

    pub fn call(&self, to: &str) -> (String, IpAddr) {
        let (_, name, peer) = self.open(to).unwrap_or_else(|error| panic!("call {to}: {error}"));
        (name, peer)
    }

    /// Calls until this one answers.
    pub fn call_until(&self, to: &str, name: &str) {
        let deadline = Instant::now() + WAIT;
        while self.connect(to, SHORT).map(|(_, found, _)| found).ok().as_deref() != Some(name) {
            assert!(Instant::now() < deadline, "{name} does not answer at {to}");
        }
    }

    /// Who answers to so many calls, with how often.
    pub fn callees(&self, to: &str, calls: usize) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for _ in 0..calls {
            *names.entry(self.call(to).0).or_default() += 1;
        }
        names
    }

    /// Counts who answers, again and again, until the counts are as they should be.
    pub fn callees_until(&self, to: &str, calls: usize, done: impl Fn(&BTreeMap<String, usize>) -> bool) {
        let deadline = Instant::now() + WAIT;
        loop {
            let callees = self.callees_or_fewer(to, calls);
            if callees.values().sum::<usize>() == calls && done(&callees) {
                return;
            }
            assert!(Instant::now() < deadline, "{to} is answered by {callees:?}");
        }
    }

    fn callees_or_fewer(&self, to: &str, calls: usize) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for (_, name, _) in (0..calls).filter_map(|_| self.connect(to, SHORT).ok()) {
            *names.entry(name).or_default() += 1;
        }
        names
    }

    /// What an HTTP server answers, head and body, when it is what it should be.
    pub fn get_until(&self, to: &str, done: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + WAIT;
        let address: SocketAddr = to.parse().expect("address");
        loop {
            let asked = self.inside(|| TcpStream::connect_timeout(&address, SHORT)).and_then(|mut stream| {
                stream.set_read_timeout(Some(WAIT))?;
                stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).map(|_| answer)
            });
            match asked {
                Ok(answer) if done(&answer) => return answer,
                other => assert!(Instant::now() < deadline, "{to} answers {other:?}"),
            }
        }
    }

    /// A socket that sends datagrams to one address.
    pub fn datagrams(&self, to: &str) -> UdpSocket {
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = self.inside(|| UdpSocket::bind(any)).expect("bind");
        socket.connect(to).expect("connect");
        socket.set_read_timeout(Some(WAIT)).expect("timeout");
        socket
    }
}

/// Sends a byte and reads the name of who answers.
pub fn ask(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"?")?;
    let mut name = [0; 64];
    let length = socket.recv(&mut name)?;
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

impl Drop for Space {
    fn drop(&mut self) {
        namespace::delete(&self.path).expect("delete");
    }
}

/// The objects of the API server.
#[derive(Default)]
pub struct Cluster {
    services: BTreeMap<ObjectKey, Arc<Service>>,
    slices: BTreeMap<ObjectKey, Arc<EndpointSlice>>,
}

impl Cluster {
    /// Creates or changes service `default/<name>`.
    pub fn store(&mut self, name: &str, spec: Value, endpoints: Value) -> ObjectKey {
        let key = ObjectKey::new("default", name);
        let (service, slice) = objects(name, spec, endpoints);
        self.services.insert(key.clone(), Arc::new(service));
        self.slices.insert(key.clone(), Arc::new(slice));
        key
    }
}

impl Objects for Cluster {
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.services.get(key).cloned()
    }

    fn slices(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.slices.get(key).cloned().into_iter().collect()
    }
}

/// The node, its three pods `a`, `b` and `c` at 10.42.0.2 to 4, and the machine outside at 192.0.2.2; all of them also
/// with addresses of IPv6: fd00:42::2 to 4, and 2001:db8::2.
pub struct World {
    pub node: Space,
    pub pods: BTreeMap<&'static str, Space>,
    pub outside: Space,
    pub cluster: Cluster,
    pub proxy: Proxy,
}

impl World {
    pub fn new(name: &str) -> Self {
        let node = Space::new(&format!("{name}-node"));
        let outside = Space::new(&format!("{name}-outside"));
        node.run(
            "ip link add br0 type bridge && ip link set br0 up && ip addr add 10.42.0.1/24 dev br0
             ip route add 10.43.0.0/16 dev br0 src 10.42.0.1
             ip addr add fd00:42::1/64 dev br0 nodad && ip route add fd00:43::/112 dev br0 src fd00:42::1
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/br0/route_localnet",
        );
        connect(&node, &outside, "wan");
        node.run("ip addr add 192.0.2.1/24 dev wan && ip addr add 2001:db8::1/64 dev wan nodad");
        outside.run(
            "ip addr add 192.0.2.2/24 dev eth0 && ip route add default via 192.0.2.1
             ip addr add 2001:db8::2/64 dev eth0 nodad && ip route add default via 2001:db8::1",
        );
        let mut pods = BTreeMap::new();
        for (pod, last) in [("a", 2), ("b", 3), ("c", 4)] {
            let space = Space::new(&format!("{name}-{pod}"));
            connect(&node, &space, &format!("pod-{pod}"));
            // Without hairpin mode, a bridge that `br_netfilter` looks into drops what goes back where it came from.
            node.run(&format!(
                "ip link set dev pod-{pod} master br0 && ip link set dev pod-{pod} type bridge_slave hairpin on"
            ));
            space.run(&format!(
                "ip addr add 10.42.0.{last}/32 dev eth0 && ip route add 10.42.0.1 dev eth0 scope link
                 ip route add default via 10.42.0.1
                 ip addr add fd00:42::{last}/128 dev eth0 nodad && ip route add fd00:42::1 dev eth0
                 ip route add default via fd00:42::1"
            ));
            space.serve(pod, 8080);
            pods.insert(pod, space);
        }
        let kernel = node.inside(Kernel::open).expect("open");
        let proxy = Proxy::new(&config(), kernel);
        let mut world = Self { node, pods, outside, cluster: Cluster::default(), proxy };
        world.update(&[]);
        world
    }

    pub fn pod(&self, name: &str) -> &Space {
        &self.pods[name]
    }

    /// Creates or changes service `default/web`, whose port 80 leads to port 8080 of these endpoints.
    pub fn set(&mut self, spec: Value, endpoints: Value) {
        self.set_named("web", spec, endpoints);
    }

    pub fn set_named(&mut self, name: &str, spec: Value, endpoints: Value) {
        let key = self.store(name, spec, endpoints);
        self.update(&[key]);
    }

    /// Stores a service without telling the proxy.
    pub fn store(&mut self, name: &str, spec: Value, endpoints: Value) -> ObjectKey {
        self.cluster.store(name, spec, endpoints)
    }

    pub fn delete(&mut self, name: &str) {
        let key = ObjectKey::new("default", name);
        self.cluster.services.remove(&key);
        self.cluster.slices.remove(&key);
        self.update(&[key]);
    }

    pub fn update(&mut self, keys: &[ObjectKey]) {
        self.proxy.update(keys.iter().cloned(), &self.cluster).expect("update");
    }

    pub fn table(&self) -> String {
        self.node.run("nft list table ip pintle_proxy")
    }
}

/// Service `default/name`, whose port 80 leads to port 8080 of these endpoints, and its slice.
pub fn objects(name: &str, spec: Value, endpoints: Value) -> (Service, EndpointSlice) {
    let mut full = json!({"clusterIP": "10.43.0.1", "ports": [{"port": 80}]});
    for (field, value) in spec.as_object().expect("an object") {
        full[field] = value.clone();
    }
    let protocol = full["ports"][0]["protocol"].as_str().unwrap_or("TCP").to_owned();
    let status = full.as_object_mut().expect("an object").remove("status").unwrap_or_default();
    let mut service = json!({"metadata": {"namespace": "default", "name": name}, "spec": full});
    if !status.is_null() {
        service["status"] = status;
    }
    let slice = json!({
        "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": if endpoints.to_string().contains("fd00:") { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [{"port": 8080, "protocol": protocol}],
    });
    (Service::from_value(service).expect("a service"), EndpointSlice::from_value(slice).expect("a slice"))
}

pub fn config() -> Config {
    let net = |text: &str| text.parse::<IpNet>().expect("net");
    Config {
        node_name: "node".into(),
        zone: None,
        pod_subnets: vec![net("10.42.0.0/16"), net("fd00:42::/56")],
        service_subnets: vec![net("10.43.0.0/16"), net("fd00:43::/112")],
    }
}

/// Ready endpoints on this node, by the last number of their addresses.
pub fn ready(last: &[u8]) -> Value {
    last.iter().map(|last| json!({"addresses": [format!("10.42.0.{last}")], "nodeName": "node"})).collect()
}

/// The same of IPv6.
pub fn ready_six(last: &[u8]) -> Value {
    last.iter().map(|last| json!({"addresses": [format!("fd00:42::{last}")], "nodeName": "node"})).collect()
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn connect(node: &Space, far: &Space, name: &str) {
    node.inside(|| {
        let peer = Peer { name: "eth0", hardware: None, namespace: Some(far.file.as_fd()) };
        Netlink::open()
            .expect("socket")
            .add_veth(&Veth { name, mtu: 1500, master: None, group: 0, peer })
            .expect("pair");
    });
    far.run("ip link set eth0 up");
}
