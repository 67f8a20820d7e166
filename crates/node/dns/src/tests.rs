//! Asks a real server over loopback, mostly with `dig`.

use crate::cluster::{Objects, cluster_addresses, service_of};
use crate::{Config, Dns, Upstreams};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use pintle_types::k8s::api::core::v1::Service;
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LOCAL: &str = "127.0.0.1:0";

#[derive(Default)]
struct Fake {
    unready: bool,
    services: BTreeMap<ObjectKey, Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Fake {
    fn service(mut self, name: &str, spec: Value) -> Self {
        let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
        self.services.insert(ObjectKey::new("shop", name), Arc::new(Service::from_value(object).expect("a service")));
        self
    }

    fn slice(mut self, service: &str, endpoints: Value, ports: Value) -> Self {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "s", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        });
        self.slices.push(Arc::new(EndpointSlice::from_value(object).expect("a slice")));
        self
    }
}

impl Objects for Fake {
    fn is_ready(&self) -> bool {
        !self.unready
    }
    fn has_namespace(&self, name: &str) -> bool {
        name == "shop"
    }
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.services.get(key).cloned()
    }
    fn slices(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.slices.iter().filter(|slice| service_of(slice).as_ref() == Some(service)).cloned().collect()
    }
    fn services_at(&self, address: &str) -> Vec<Arc<Service>> {
        self.services
            .values()
            .filter(|service| cluster_addresses(service).iter().any(|a| a == address))
            .cloned()
            .collect()
    }
    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>> {
        let has =
            |slice: &EndpointSlice| slice.endpoints.iter().flatten().any(|e| e.addresses.iter().any(|a| a == address));
        self.slices.iter().filter(|slice| has(slice)).cloned().collect()
    }
}

/// A shop: `web` with a cluster address, `db` headless with three pods of which two are ready, aliases, and more.
fn shop() -> Fake {
    let ports = json!([{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]);
    let pods = json!([
        {"addresses": ["10.42.0.2"], "hostname": "db-0"},
        {"addresses": ["10.42.0.3"]},
        {"addresses": ["10.42.0.4"], "conditions": {"ready": false}},
    ]);
    Fake::default()
        .service("web", json!({"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7", "fd43::7"], "ports": ports}))
        .service("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}))
        .slice("db", pods, json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]))
        .service("portless", json!({"clusterIP": "None"}))
        .slice("portless", json!([{"addresses": ["10.42.0.9"]}]), json!([]))
        .service("empty", json!({"clusterIP": "None"}))
        .service("alias", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}))
        .service("circle", json!({"type": "ExternalName", "externalName": "circle.shop.svc.cluster.local"}))
        .service("outside", json!({"type": "ExternalName", "externalName": "example.org"}))
}

/// A server that runs until it is dropped.
struct Running {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start(objects: Fake, upstreams: Vec<SocketAddr>) -> Running {
    let config = Config {
        addresses: vec![LOCAL.parse().expect("address")],
        domain: "cluster.local".into(),
        upstreams: Upstreams::Fixed(upstreams),
        ttl: 30,
        settings: None,
        metrics: None,
        serial: 7,
    };
    let dns = Dns::bind(config).await.expect("bind");
    let address = dns.addresses()[0];
    Running { address, task: tokio::spawn(dns.serve_objects(Box::new(objects), CancellationToken::new())) }
}

/// What `dig` prints about a question: the status, then every record, in order, with single spaces.
async fn dig(server: SocketAddr, question: &str) -> String {
    let arguments = format!(
        "@127.0.0.1 -p {} +tries=1 +timeout=9 +noall +comments +answer +authority +additional {question}",
        server.port()
    );
    let output = tokio::task::spawn_blocking(move || Command::new("dig").args(arguments.split(' ')).output())
        .await
        .expect("join")
        .expect("dig is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("none");
    let mut records: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with(';') && !line.is_empty())
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    records.sort();
    [vec![status.to_owned()], records].concat().join("\n")
}

const SOA: &str = "cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 30";

#[tokio::test]
async fn names_of_the_cluster() {
    let server = start(shop(), vec![]).await;
    let found = |records: &[&str]| [&["NOERROR"], records].concat().join("\n");
    let (nothing, unknown) = (found(&[SOA]), format!("NXDOMAIN\n{SOA}"));
    for (question, expected) in [
        // Services with a cluster address.
        ("web.shop.svc.cluster.local A", found(&["web.shop.svc.cluster.local. 30 IN A 10.43.0.7"])),
        ("WEB.shop.SVC.cluster.LOCAL A", found(&["WEB.shop.SVC.cluster.LOCAL. 30 IN A 10.43.0.7"])),
        ("web.shop.svc.cluster.local AAAA", found(&["web.shop.svc.cluster.local. 30 IN AAAA fd43::7"])),
        ("web.shop.svc.cluster.local MX", nothing.clone()),
        ("web.shop.svc.cluster.local TXT", nothing.clone()),
        ("none.shop.svc.cluster.local A", unknown.clone()),
        ("web.none.svc.cluster.local A", unknown.clone()),
        (
            "_http._tcp.web.shop.svc.cluster.local SRV",
            found(&[
                "_http._tcp.web.shop.svc.cluster.local. 30 IN SRV 0 50 80 web.shop.svc.cluster.local.",
                "web.shop.svc.cluster.local. 30 IN A 10.43.0.7",
                "web.shop.svc.cluster.local. 30 IN AAAA fd43::7",
            ]),
        ),
        ("_http._udp.web.shop.svc.cluster.local SRV", unknown.clone()),
        ("_none._tcp.web.shop.svc.cluster.local SRV", unknown.clone()),
        // Headless services and their endpoints.
        (
            "db.shop.svc.cluster.local A",
            found(&["db.shop.svc.cluster.local. 30 IN A 10.42.0.2", "db.shop.svc.cluster.local. 30 IN A 10.42.0.3"]),
        ),
        ("db.shop.svc.cluster.local AAAA", nothing.clone()),
        ("db-0.db.shop.svc.cluster.local A", found(&["db-0.db.shop.svc.cluster.local. 30 IN A 10.42.0.2"])),
        ("10-42-0-3.db.shop.svc.cluster.local A", found(&["10-42-0-3.db.shop.svc.cluster.local. 30 IN A 10.42.0.3"])),
        ("10-42-0-4.db.shop.svc.cluster.local A", unknown.clone()),
        (
            "_sql._tcp.db.shop.svc.cluster.local SRV",
            found(&[
                "10-42-0-3.db.shop.svc.cluster.local. 30 IN A 10.42.0.3",
                "_sql._tcp.db.shop.svc.cluster.local. 30 IN SRV 0 50 5432 10-42-0-3.db.shop.svc.cluster.local.",
                "_sql._tcp.db.shop.svc.cluster.local. 30 IN SRV 0 50 5432 db-0.db.shop.svc.cluster.local.",
                "db-0.db.shop.svc.cluster.local. 30 IN A 10.42.0.2",
            ]),
        ),
        ("portless.shop.svc.cluster.local A", found(&["portless.shop.svc.cluster.local. 30 IN A 10.42.0.9"])),
        ("portless.shop.svc.cluster.local SRV", nothing.clone()),
        ("empty.shop.svc.cluster.local A", unknown.clone()),
        // Aliases.
        (
            "alias.shop.svc.cluster.local A",
            found(&[
                "alias.shop.svc.cluster.local. 30 IN CNAME web.shop.svc.cluster.local.",
                "web.shop.svc.cluster.local. 30 IN A 10.43.0.7",
            ]),
        ),
        (
            "alias.shop.svc.cluster.local CNAME",
            found(&["alias.shop.svc.cluster.local. 30 IN CNAME web.shop.svc.cluster.local."]),
        ),
        ("outside.shop.svc.cluster.local A", found(&["outside.shop.svc.cluster.local. 30 IN CNAME example.org."])),
        // Pods, whether there is one or not.
        ("10-42-0-77.shop.pod.cluster.local A", found(&["10-42-0-77.shop.pod.cluster.local. 30 IN A 10.42.0.77"])),
        ("fd42--7.shop.pod.cluster.local AAAA", found(&["fd42--7.shop.pod.cluster.local. 30 IN AAAA fd42::7"])),
        ("10-42-0-77.none.pod.cluster.local A", unknown.clone()),
        ("words.shop.pod.cluster.local A", unknown.clone()),
        // The tree itself.
        ("cluster.local SOA", found(&[SOA])),
        (
            "cluster.local NS",
            found(&["cluster.local. 30 IN NS ns.dns.cluster.local.", "ns.dns.cluster.local. 30 IN A 127.0.0.1"]),
        ),
        ("ns.dns.cluster.local A", found(&["ns.dns.cluster.local. 30 IN A 127.0.0.1"])),
        ("svc.cluster.local A", nothing.clone()),
        ("shop.svc.cluster.local A", nothing.clone()),
        ("none.svc.cluster.local A", unknown.clone()),
        ("other.cluster.local A", unknown.clone()),
        ("a.b.c.web.shop.svc.cluster.local A", unknown.clone()),
        ("dns-version.cluster.local TXT", found(&["dns-version.cluster.local. 28800 IN TXT \"1.1.0\""])),
        // Addresses.
        ("-x 10.43.0.7", found(&["7.0.43.10.in-addr.arpa. 30 IN PTR web.shop.svc.cluster.local."])),
        ("-x 10.42.0.2", found(&["2.0.42.10.in-addr.arpa. 30 IN PTR db-0.db.shop.svc.cluster.local."])),
        ("-x 10.42.0.3", found(&["3.0.42.10.in-addr.arpa. 30 IN PTR 10-42-0-3.db.shop.svc.cluster.local."])),
        // Without upstream servers, nothing else is known.
        ("-x 10.42.0.4", "SERVFAIL".into()),
        ("example.org A", "SERVFAIL".into()),
        ("web.shop.svc.cluster.local A -c CH", "REFUSED".into()),
    ] {
        assert_eq!(dig(server.address, question).await, expected, "{question}");
    }
    let circle = dig(server.address, "circle.shop.svc.cluster.local A").await;
    assert_eq!(circle.lines().count(), 9, "a circle of aliases ends: {circle}");
}

#[tokio::test]
async fn many_endpoints_need_a_stream() {
    let endpoints = (0..200).map(|n| json!({"addresses": [format!("10.42.1.{n}")]})).collect();
    let objects =
        Fake::default().service("big", json!({"clusterIP": "None"})).slice("big", endpoints, json!([{"port": 1}]));
    let server = start(objects, vec![]).await;
    let question = "big.shop.svc.cluster.local A";
    let records = |answer: String| answer.lines().count() - 1;
    assert_eq!(records(dig(server.address, question).await), 200, "dig asks again over TCP");
    assert_eq!(records(dig(server.address, &format!("{question} +tcp")).await), 200);
    let cut = records(dig(server.address, &format!("{question} +ignore")).await);
    assert!((30..200).contains(&cut), "{cut}");
    let plain = records(dig(server.address, &format!("{question} +ignore +noedns")).await);
    assert!((1..30).contains(&plain), "{plain}");
}

#[tokio::test]
async fn before_the_objects_are_read_names_are_not_denied() {
    let server = start(Fake { unready: true, ..shop() }, vec![]).await;
    assert_eq!(dig(server.address, "web.shop.svc.cluster.local A").await, "SERVFAIL");
}

#[tokio::test]
async fn broken_queries_are_answered_or_ignored_and_the_server_goes_on() {
    let server = start(shop(), vec![]).await;
    let socket = UdpSocket::bind(LOCAL).await.expect("bind");
    socket.connect(server.address).await.expect("connect");
    for ignored in [&b""[..], b"x", &[0; 11], &[0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]] {
        socket.send(ignored).await.expect("send");
    }
    let header = |flags: u8, questions: u8| vec![0, 9, flags, 0, 0, questions, 0, 0, 0, 0, 0, 0];
    let code = ResponseCode::from(0, 4);
    for (query, expected) in [
        (header(0, 1), ResponseCode::FormErr),
        (header(0, 0), ResponseCode::FormErr),
        // A name that points to itself.
        ([header(0, 1), vec![0xc0, 12, 0, 1, 0, 1]].concat(), ResponseCode::FormErr),
        (header(0x10, 0), code),
        (
            vec![0xff; 4096].iter().enumerate().map(|(i, b)| if i == 2 { 0 } else { *b }).collect(),
            ResponseCode::FormErr,
        ),
    ] {
        socket.send(&query).await.expect("send");
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).await.expect("an answer");
        let answer = Message::from_vec(&buffer[..length]).expect("a message");
        assert_eq!((answer.message_type(), answer.response_code()), (MessageType::Response, expected), "{query:?}");
    }
    // Over a stream: two questions of which the second is cut, then the server still listens.
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(&[&[0, 12][..], &header(0, 0), &[0, 99, 1]].concat()).await.expect("write");
    stream.shutdown().await.expect("shutdown");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    assert_eq!(answer.len(), 14);
    assert!(dig(server.address, "web.shop.svc.cluster.local A +tcp").await.starts_with("NOERROR"));
}

/// An upstream server that counts questions, and answers datagrams with `truncated` if it is set.
async fn upstream(truncated: bool, code: ResponseCode) -> (SocketAddr, Arc<AtomicUsize>) {
    let (socket, listener) = crate::server::listen(LOCAL.parse().expect("address")).await.expect("bind");
    let address = socket.local_addr().expect("address");
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.expect("receive");
            counter.fetch_add(1, Ordering::SeqCst);
            let mut answer = reply(&buffer[..length], code);
            if truncated {
                answer.set_truncated(true).take_answers();
            }
            // A forged answer with another number comes first, and must not be believed.
            let mut forged = answer.clone();
            forged.set_id(answer.id().wrapping_add(1)).set_response_code(ResponseCode::NXDomain);
            for message in [forged, answer] {
                socket.send_to(&message.to_vec().expect("encode"), client).await.expect("send");
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut query = vec![0; stream.read_u16().await.expect("length").into()];
            stream.read_exact(&mut query).await.expect("query");
            let answer = reply(&query, code).to_vec().expect("encode");
            stream.write_u16(answer.len() as u16).await.expect("write");
            stream.write_all(&answer).await.expect("write");
        }
    });
    (address, count)
}

fn reply(query: &[u8], code: ResponseCode) -> Message {
    let mut message = Message::from_vec(query).expect("a query");
    message.set_message_type(MessageType::Response).set_response_code(code);
    let name = message.queries()[0].name().clone();
    if code == ResponseCode::NoError {
        message.add_answer(Record::from_rdata(name, 300, RData::A(A::new(192, 0, 2, 80))));
    }
    message
}

#[tokio::test]
async fn other_names_are_forwarded_and_remembered() {
    let (address, count) = upstream(false, ResponseCode::NoError).await;
    let server = start(shop(), vec![address]).await;
    for _ in 0..2 {
        assert_eq!(dig(server.address, "www.example.org A").await, "NOERROR\nwww.example.org. 300 IN A 192.0.2.80");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "the second time it was known");
    assert_eq!(
        dig(server.address, "outside.shop.svc.cluster.local A").await,
        "NOERROR\nexample.org. 300 IN A 192.0.2.80\noutside.shop.svc.cluster.local. 30 IN CNAME example.org."
    );
    assert_eq!(dig(server.address, "none.shop.svc.cluster.local A").await.lines().next(), Some("NXDOMAIN"));
    assert_eq!(count.load(Ordering::SeqCst), 2, "names of the cluster stay here");
}

#[tokio::test]
async fn a_long_answer_is_fetched_over_a_stream() {
    let (address, _) = upstream(true, ResponseCode::NoError).await;
    let server = start(shop(), vec![address]).await;
    assert_eq!(dig(server.address, "www.example.org A").await, "NOERROR\nwww.example.org. 300 IN A 192.0.2.80");
}

#[tokio::test]
async fn the_next_upstream_is_asked_when_one_fails() {
    let (failing, _) = upstream(false, ResponseCode::ServFail).await;
    let gone = UdpSocket::bind(LOCAL).await.expect("bind").local_addr().expect("address");
    let (good, count) = upstream(false, ResponseCode::NoError).await;
    let server = start(shop(), vec![failing, gone, good]).await;
    for name in ["a.example.org", "b.example.org"] {
        assert!(dig(server.address, name).await.starts_with("NOERROR"), "{name}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let server = start(shop(), vec![gone]).await;
    assert_eq!(dig(server.address, "a.example.org").await, "SERVFAIL");
    let server = start(shop(), vec![failing]).await;
    assert_eq!(dig(server.address, "a.example.org").await, "SERVFAIL");
}

#[tokio::test(start_paused = true)]
async fn answers_grow_old() {
    use crate::cache::{Cache, Question};
    use hickory_proto::rr::{Name, RecordType};
    let question = |text: &str| Question {
        name: Name::from_ascii(text).expect("name"),
        kind: RecordType::A,
        dnssec: false,
        checking_disabled: false,
    };
    let mut message = Message::new();
    message.add_answer(Record::from_rdata(Name::root(), 20, RData::A(A::new(192, 0, 2, 1))));
    let cache = Cache::default();
    cache.put(question("a."), &message);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(cache.get(&question("a.")).expect("known").answers()[0].ttl(), 15);
    tokio::time::advance(Duration::from_secs(16)).await;
    assert!(cache.get(&question("a.")).is_none());
    message.answers_mut()[0].set_ttl(3600);
    cache.put(question("b."), &message);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(cache.get(&question("b.")).is_none(), "nothing is believed for longer than half a minute");
    message.take_answers();
    cache.put(question("c."), &message);
    assert!(cache.get(&question("c.")).is_none(), "a denial without a SOA record is not remembered");
    for n in 0..3000 {
        message.add_answer(Record::from_rdata(Name::root(), 20, RData::A(A::new(192, 0, 2, 1))));
        message.answers_mut().truncate(1);
        cache.put(question(&format!("n{n}.")), &message);
    }
    assert!(cache.get(&question("n2999.")).is_some() && cache.get(&question("n0.")).is_none());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let server = start(shop(), vec![]).await;
    let config = Config {
        addresses: vec![server.address],
        domain: "cluster.local".into(),
        upstreams: Upstreams::Fixed(vec![]),
        ttl: 30,
        settings: None,
        metrics: None,
        serial: 1,
    };
    let error = Dns::bind(config.clone()).await.expect_err("taken").to_string();
    assert!(error.contains(&server.address.to_string()), "{error}");
    assert!(Dns::bind(Config { domain: ".".into(), ..config.clone() }).await.is_err());
    assert!(Dns::bind(Config { domain: "a..b".into(), ..config }).await.is_err());
}

#[tokio::test]
async fn what_the_api_server_tells_is_answered_also_while_it_is_away() {
    let api = pintle_fake_api::FakeApi::new();
    let stop = CancellationToken::new();
    let informers = pintle_informer::Informers::new(api.client(), stop.clone());
    let config = Config {
        addresses: vec![LOCAL.parse().expect("address")],
        domain: "cluster.local".into(),
        upstreams: Upstreams::Fixed(vec![]),
        ttl: 30,
        settings: None,
        metrics: None,
        serial: 7,
    };
    let dns = Dns::bind(config).await.expect("bind");
    let address = dns.addresses()[0];
    let running = tokio::spawn({
        let (informers, stop) = (informers.clone(), stop.clone());
        async move { dns.serve(&informers, stop).await }
    });
    let Fake { services, slices, .. } = shop();
    for service in services.values() {
        api.put(&**service);
    }
    api.put(&*slices[0]);
    let namespace = json!({"metadata": {"name": "shop"}});
    api.put(&pintle_types::k8s::api::core::v1::Namespace::from_value(namespace).expect("a namespace"));
    let wanted = "NOERROR\n10-42-0-77.shop.pod.cluster.local. 30 IN A 10.42.0.77";
    while dig(address, "10-42-0-77.shop.pod.cluster.local A").await != wanted {}
    api.break_watches();
    for (question, records) in
        [("web.shop.svc.cluster.local A", 1), ("db.shop.svc.cluster.local A", 2), ("-x 10.42.0.2", 1)]
    {
        let answer = dig(address, question).await;
        assert!(answer.starts_with("NOERROR") && answer.lines().count() == 1 + records, "{question}: {answer}");
    }
    stop.cancel();
    running.await.expect("it ends");
}

#[tokio::test]
async fn domains_have_servers_of_their_own_and_questions_are_counted() {
    let api = pintle_fake_api::FakeApi::new();
    let stop = CancellationToken::new();
    let informers = pintle_informer::Informers::new(api.client(), stop.clone());
    let ((general, _), (special, asked)) =
        (upstream(false, ResponseCode::NXDomain).await, upstream(false, ResponseCode::NoError).await);
    let free = std::net::TcpListener::bind(LOCAL).expect("a port").local_addr().expect("its address");
    let config = Config {
        addresses: vec![LOCAL.parse().expect("address")],
        domain: "cluster.local".into(),
        upstreams: Upstreams::Fixed(vec![general]),
        ttl: 30,
        settings: Some(ObjectKey::new("kube-system", "kube-dns")),
        metrics: Some(free),
        serial: 7,
    };
    let dns = Dns::bind(config).await.expect("bind");
    let address = dns.addresses()[0];
    let running = tokio::spawn({
        let (informers, stop) = (informers.clone(), stop.clone());
        async move { dns.serve(&informers, stop).await }
    });
    assert!(dig(address, "printer.acme.local A").await.starts_with("NXDOMAIN"));
    let settings = |stubs: String| {
        let object =
            json!({"metadata": {"namespace": "kube-system", "name": "kube-dns"}, "data": {"stubDomains": stubs}});
        pintle_types::k8s::api::core::v1::ConfigMap::from_value(object).expect("settings")
    };
    api.put(&settings(json!({"acme.local": [special.to_string()]}).to_string()));
    while !dig(address, "printer.acme.local A").await.starts_with("NOERROR") {}
    assert!(asked.load(Ordering::Relaxed) > 0);
    assert!(dig(address, "printer.other.local A").await.starts_with("NXDOMAIN"));
    api.put(&settings("nonsense".into()));
    assert!(dig(address, "scanner.acme.local A").await.starts_with("NOERROR"), "what was right stays");

    let mut stream = TcpStream::connect(free).await.expect("metrics");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: dns\r\nConnection: close\r\n\r\n").await.expect("ask");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    for series in [
        "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",proto=\"udp\",type=\"A\"}",
        "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",rcode=\"NXDOMAIN\"}",
        "coredns_cache_misses_total{server=\"dns://:53\"}",
    ] {
        assert!(text.contains(series), "{series} is missing:\n{text}");
    }
    stop.cancel();
    running.await.expect("it ends");
}
