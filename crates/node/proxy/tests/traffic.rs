//! Sends real connections and datagrams through service addresses, in network namespaces of their own.

mod world;

use pintle_fake_api::FakeApi;
use pintle_informer::Informers;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Node;
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use world::{World, address, ask, ready, ready_six};

#[test]
fn cluster_addresses_lead_to_all_endpoints() {
    let mut world = World::new("cluster");
    world.set(json!({}), ready(&[2, 3, 4]));
    let callees = world.pod("a").callees("10.43.0.1:80", 60);
    assert_eq!(callees.keys().collect::<Vec<_>>(), ["a", "b", "c"], "{callees:?}");
    let callees = world.node.callees("10.43.0.1:80", 60);
    assert_eq!(callees.len(), 3, "{callees:?}");

    world.set(json!({}), ready(&[3]));
    for seen_by_bridge in ["1", "0"] {
        // Where `br_netfilter` is, frames between pods pass the rules on the bridge; where it is not, pods reach each
        // other through the host. Both must work.
        world.node.run(&format!(
            "f=/proc/sys/net/bridge/bridge-nf-call-iptables; if [ -e $f ]; then echo {seen_by_bridge} > $f; fi"
        ));
        assert_eq!(world.pod("a").call("10.43.0.1:80"), ("b".into(), address("10.42.0.2")), "the client is seen");
        assert_eq!(world.pod("b").call("10.43.0.1:80"), ("b".into(), address("10.42.0.1")), "itself, by a way back");
        assert_eq!(world.outside.call("10.43.0.1:80"), ("b".into(), address("10.42.0.1")), "from outside, masqueraded");
    }
}

#[test]
fn the_node_itself_can_be_an_endpoint() {
    let mut world = World::new("host");
    world.node.serve("node", 8080);
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    for endpoint in ["10.42.0.1", "192.0.2.1"] {
        world.set(spec.clone(), json!([{"addresses": [endpoint], "nodeName": "node"}]));
        assert_eq!(world.pod("a").call("10.43.0.1:80"), ("node".into(), address("10.42.0.2")), "{endpoint}");
        for to in ["10.43.0.1:80", "127.0.0.1:30080", "192.0.2.1:30080"] {
            assert_eq!(world.node.call(to).0, "node", "{endpoint} at {to}");
        }
        assert_eq!(world.outside.call("192.0.2.1:30080").0, "node", "{endpoint}");
    }
    // An address of the services' range on the node itself, whether a service has it or not.
    world.node.run("ip addr add 10.43.0.20/32 dev br0");
    for known in [false, true] {
        if known {
            world.set_named("on-node", json!({"clusterIP": "10.43.0.20", "ports": [{"port": 8080}]}), json!([]));
        }
        assert_eq!(world.pod("a").call("10.43.0.20:8080"), ("node".into(), address("10.42.0.2")));
        assert_eq!(world.node.call("10.43.0.20:8080").0, "node");
    }
    world.set_named("dns", json!({"clusterIP": "10.43.0.10", "ports": [{"port": 53, "protocol": "UDP"}]}), ready(&[1]));
    for client in [world.pod("a"), &world.node] {
        assert_eq!(ask(&client.datagrams("10.43.0.10:53")).expect("an answer"), "node");
    }
}

#[test]
fn node_ports_and_external_addresses_answer_everywhere() {
    let mut world = World::new("nodeport");
    let spec = json!({
        "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}], "externalIPs": ["198.51.100.7"],
    });
    world.set(spec, ready(&[3]));
    for to in ["192.0.2.1:30080", "10.42.0.1:30080", "198.51.100.7:80"] {
        assert_eq!(world.outside.call(to), ("b".into(), address("10.42.0.1")), "{to}");
    }
    for to in ["192.0.2.1:30080", "127.0.0.1:30080"] {
        assert_eq!(world.node.call(to).0, "b", "{to}");
    }
    for pod in ["a", "b"] {
        assert_eq!(world.pod(pod).call("192.0.2.1:30080").0, "b", "{pod}");
    }
    world.set(json!({"ports": [{"port": 80}]}), ready(&[3]));
    assert_eq!(world.outside.open_in_vain("192.0.2.1:30080"), ErrorKind::ConnectionRefused);
}

#[test]
fn local_policy_keeps_the_clients_address() {
    let mut world = World::new("local");
    let spec = json!({
        "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}], "externalTrafficPolicy": "Local",
    });
    let elsewhere = json!([{"addresses": ["10.42.0.4"], "nodeName": "other"}]);
    let mut both = ready(&[3]);
    both.as_array_mut().expect("list").push(elsewhere[0].clone());
    world.set(spec.clone(), both);
    let callees = world.outside.callees("192.0.2.1:30080", 20);
    assert_eq!(callees.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(world.outside.call("192.0.2.1:30080").1, address("192.0.2.2"));
    let callees = world.pod("a").callees("192.0.2.1:30080", 60);
    assert_eq!(callees.len(), 2, "clients inside reach all: {callees:?}");

    world.set(spec, elsewhere.clone());
    assert_eq!(world.outside.open_in_vain("192.0.2.1:30080"), ErrorKind::TimedOut, "dropped, not refused");
    assert_eq!(world.node.call("192.0.2.1:30080").0, "c");
    assert_eq!(world.pod("a").call("192.0.2.1:30080").0, "c");

    world.set(json!({"internalTrafficPolicy": "Local"}), elsewhere);
    assert_eq!(world.pod("a").open_in_vain("10.43.0.1:80"), ErrorKind::TimedOut);
    world.set(json!({"internalTrafficPolicy": "Local"}), ready(&[2]));
    assert_eq!(world.pod("c").call("10.43.0.1:80").0, "a");
}

#[test]
fn addresses_of_the_other_family_do_the_same() {
    let mut world = World::new("six");
    let spec = json!({"clusterIP": "fd00:43::1", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}],
        "externalIPs": ["2001:db8:7::7"]});
    world.set(spec.clone(), ready_six(&[2, 3, 4]));
    for client in [world.pod("a"), &world.node] {
        assert_eq!(client.callees("[fd00:43::1]:80", 60).len(), 3);
    }
    world.set(spec.clone(), ready_six(&[3]));
    for (client, to, seen) in [
        (world.pod("a"), "[fd00:43::1]:80", "fd00:42::2"),
        (world.pod("b"), "[fd00:43::1]:80", "fd00:42::1"),
        (&world.outside, "[fd00:43::1]:80", "fd00:42::1"),
        (&world.outside, "[2001:db8::1]:30080", "fd00:42::1"),
        (&world.outside, "[2001:db8:7::7]:80", "fd00:42::1"),
    ] {
        assert_eq!(client.call(to), ("b".into(), address(seen)), "{to}");
    }
    assert_eq!(world.node.call("[2001:db8::1]:30080").0, "b");
    assert_eq!(world.pod("b").call("[2001:db8::1]:30080").0, "b");

    let mut local = spec.clone();
    local["externalTrafficPolicy"] = json!("Local");
    world.set(local, ready_six(&[3]));
    assert_eq!(world.outside.call("[2001:db8::1]:30080").1, address("2001:db8::2"));

    let mut affine = spec.clone();
    affine["sessionAffinity"] = json!("ClientIP");
    world.set(affine, ready_six(&[2, 3, 4]));
    assert_eq!(world.pod("a").callees("[fd00:43::1]:80", 20).len(), 1, "it stays with its endpoint");

    world.set(spec, json!([]));
    assert_eq!(world.pod("a").open_in_vain("[fd00:43::1]:80"), ErrorKind::ConnectionRefused);
    assert_eq!(world.outside.open_in_vain("[2001:db8::1]:30080"), ErrorKind::ConnectionRefused);
    assert_eq!(world.pod("a").open_in_vain("[fd00:43::9]:80"), ErrorKind::TimedOut, "an address of nobody");

    let udp = json!({"clusterIP": "fd00:43::1", "ports": [{"port": 80, "protocol": "UDP"}]});
    world.set(udp.clone(), ready_six(&[2]));
    let socket = world.pod("c").datagrams("[fd00:43::1]:80");
    assert_eq!(ask(&socket).expect("an answer"), "a");
    world.set(udp, ready_six(&[3]));
    assert_eq!(ask(&socket).expect("an answer"), "b", "the flow was forgotten");

    world.set(json!({}), ready(&[2]));
    assert_eq!(world.pod("c").call("10.43.0.1:80").0, "a", "a service can change its family");
    assert!(!world.node.run("nft list table ip6 pintle_proxy").contains("default/web"), "and leaves nothing");
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let mut world = World::new("empty");
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    world.set(spec.clone(), json!([]));
    for to in ["10.43.0.1:80", "10.43.0.1:81", "192.0.2.1:30080"] {
        for client in [&world.node, world.pod("a"), &world.outside] {
            assert_eq!(client.open_in_vain(to), ErrorKind::ConnectionRefused, "{to}");
        }
    }
    assert_eq!(world.pod("a").open_in_vain("10.43.9.9:80"), ErrorKind::TimedOut, "no service has this address");
    world.set_named("dns", json!({"clusterIP": "10.43.0.10", "ports": [{"port": 53, "protocol": "UDP"}]}), json!([]));
    let socket = world.pod("a").datagrams("10.43.0.10:53");
    assert_eq!(ask(&socket).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
    world.set(spec, ready(&[2]));
    assert_eq!(world.outside.call("192.0.2.1:30080").0, "a");
}

#[test]
fn a_departing_endpoint_keeps_its_connections_and_gets_no_new_ones() {
    let mut world = World::new("rolling");
    world.set(json!({}), ready(&[2, 3]));
    let mut streams: Vec<_> = (0..20).map(|_| world.pod("c").open("10.43.0.1:80").expect("open")).collect();
    assert!(streams.iter().any(|(_, name, _)| name == "b"));
    world.set(json!({}), ready(&[2]));
    assert_eq!(world.pod("c").callees("10.43.0.1:80", 30).keys().collect::<Vec<_>>(), ["a"]);
    world.delete("web");
    for (stream, name, _) in &mut streams {
        let mut byte = [0];
        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(&byte, b"x");
    }
    assert_eq!(world.pod("c").open_in_vain("10.43.0.1:80"), ErrorKind::TimedOut);
}

/// Sets its flag in the end, also of a test that fails.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_connection_fails_while_endpoints_change() {
    let mut world = World::new("changing");
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    world.set(spec.clone(), ready(&[2]));
    let World { node, pods, outside, cluster, proxy } = &mut world;
    let (done, node, pods, outside) = (AtomicBool::new(false), &*node, &*pods, &*outside);
    let calls: usize = std::thread::scope(|scope| {
        let client = |space: &'static str, to: &'static str| {
            let done = &done;
            scope.spawn(move || {
                let space = if space == "outside" { outside } else { &pods[space] };
                let mut calls = 0;
                while !done.load(Ordering::Relaxed) {
                    space.call(to);
                    calls += 1;
                }
                calls
            })
        };
        let clients =
            [client("a", "10.43.0.1:80"), client("b", "192.0.2.1:30080"), client("outside", "192.0.2.1:30080")];
        let end = Set(&done);
        for round in 0..300 {
            let endpoints = [&[2][..], &[2, 3], &[3], &[3, 4], &[4], &[2, 4]][round % 6];
            let key = cluster.store("web", spec.clone(), ready(endpoints));
            proxy.update([key], cluster).expect("update");
            let name = node.call("10.43.0.1:80").0;
            let last = [("a", 2), ("b", 3), ("c", 4)].iter().find(|(known, _)| *known == name).expect("a pod").1;
            assert!(endpoints.contains(&last), "{name} is not an endpoint any more");
        }
        drop(end);
        clients.into_iter().map(|client| client.join().expect("no call fails")).sum()
    });
    assert!(calls > 100, "{calls}");
}

#[test]
fn an_ending_endpoint_serves_only_when_no_other_can() {
    let mut world = World::new("ending");
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    let mut endpoints = ready(&[2, 3]);
    endpoints[1]["conditions"] = ending.clone();
    world.set(json!({}), endpoints.clone());
    assert_eq!(world.pod("c").callees("10.43.0.1:80", 20).keys().collect::<Vec<_>>(), ["a"]);
    endpoints[0]["conditions"] = json!({"ready": false, "serving": false});
    world.set(json!({}), endpoints);
    assert_eq!(world.pod("c").callees("10.43.0.1:80", 5).keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_client_with_affinity_stays_until_its_endpoint_goes() {
    let mut world = World::new("affinity");
    let spec = json!({"sessionAffinity": "ClientIP"});
    world.set(spec.clone(), ready(&[2, 3, 4]));
    let first = world.outside.call("10.43.0.1:80").0;
    assert_eq!(world.outside.callees("10.43.0.1:80", 15).keys().collect::<Vec<_>>(), [&first]);
    // Another endpoint comes or goes: the client does not move.
    let all = [("a", 2), ("b", 3), ("c", 4)];
    let other = all.iter().find(|(name, _)| *name != first).expect("three").1;
    let rest: Vec<u8> = all.iter().map(|(_, last)| *last).filter(|last| *last != other).collect();
    world.set(spec.clone(), ready(&rest));
    assert_eq!(world.outside.callees("10.43.0.1:80", 15).keys().collect::<Vec<_>>(), [&first]);
    let rest: Vec<u8> = all.iter().filter(|(name, _)| *name != first).map(|(_, last)| *last).collect();
    world.set(spec, ready(&rest));
    let second = world.outside.callees("10.43.0.1:80", 15);
    assert!(second.len() == 1 && !second.contains_key(&first), "{second:?}");
}

#[test]
fn datagrams_follow_when_their_endpoint_goes() {
    let mut world = World::new("datagrams");
    let spec = json!({"clusterIP": "10.43.0.10", "ports": [{"port": 53, "protocol": "UDP"}]});
    let early = world.pod("c").datagrams("10.43.0.10:53");
    early.send(b"?").expect("nobody hears it yet");
    world.set_named("dns", spec.clone(), ready(&[2]));
    let socket = world.pod("c").datagrams("10.43.0.10:53");
    assert_eq!(ask(&socket).expect("an answer"), "a");
    assert_eq!(ask(&early).expect("an answer"), "a");
    world.set_named("dns", spec, ready(&[3]));
    assert_eq!(ask(&socket).expect("an answer on the same socket"), "b");
}

#[test]
fn a_load_balancers_ranges_are_kept() {
    let mut world = World::new("ranges");
    let spec = |range: &str| {
        json!({
            "type": "LoadBalancer", "loadBalancerSourceRanges": [range],
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}, {"ip": "198.51.100.10", "ipMode": "Proxy"}]}},
        })
    };
    world.set(spec("192.0.2.0/24"), ready(&[2]));
    assert_eq!(world.outside.call("198.51.100.9:80").0, "a");
    assert!(!world.table().contains("198.51.100.10"));
    world.set(spec("203.0.113.0/24"), ready(&[2]));
    assert_eq!(world.outside.open_in_vain("198.51.100.9:80"), ErrorKind::TimedOut);
    assert_eq!(world.pod("b").call("10.43.0.1:80").0, "a", "the cluster's own address is open");
}

#[test]
fn only_first_packets_are_asked_about_and_what_others_translate_is_left_to_them() {
    let mut world = World::new("first");
    world.set(json!({}), ready(&[2]));
    let table = world.table();
    assert_eq!(table.matches(" hook ").count(), 7, "{table}");
    assert_eq!(table.matches("type nat hook ").count(), 7, "other types see all packets: {table}");
    let other =
        "chain other-prerouting { type nat hook prerouting priority -95; ip daddr 10.43.9.9 dnat to 10.42.0.2; }";
    world.node.run(&format!("nft 'table ip other {{ {other}; }}'"));
    assert_eq!(world.pod("b").call("10.43.9.9:8080").0, "a", "an address of the services' range that no service has");
}

#[test]
fn a_connection_that_began_before_there_were_rules_is_led_to_its_service() {
    let mut world = World::new("early");
    world.set(json!({}), ready(&[2]));
    let tracked = "chain tracked { type filter hook forward priority 0; ct state new counter; }";
    world.node.run(&format!("nft flush ruleset && nft 'table ip early {{ {tracked}; }}'"));
    let client = world.pods.remove("c").expect("a pod");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call("10.43.0.1:80").0);
        while world.node.run("nft list table ip early").contains("packets 0") {}
        // The table is gone, so the next change makes a new one.
        world.set_named("other", json!({"clusterIP": "10.43.0.2"}), ready(&[3]));
        assert_eq!(call.join().expect("an answer"), "a");
    });
}

#[test]
fn what_services_leave_is_an_empty_table() {
    let mut world = World::new("leave");
    let empty = world.table();
    let spec = json!({
        "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}], "externalIPs": ["198.51.100.7"],
        "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
    });
    for (spec, endpoints) in [
        (spec.clone(), ready(&[2, 3, 4])),
        (spec.clone(), json!([])),
        (json!({}), ready(&[2, 3])),
        (json!({"clusterIP": "None"}), ready(&[2])),
        (spec.clone(), ready(&[4])),
        (json!({"clusterIP": "10.43.0.2"}), ready(&[4])),
        (spec, ready(&[2])),
    ] {
        world.set(spec, endpoints);
    }
    assert!(world.table().contains("endpoint-default/web/tcp/__10.42.0.2/8080"));
    world.delete("web");
    assert_eq!(world.table(), empty);
    world.proxy.remove_all().expect("removed");
    world.proxy.remove_all().expect("again");
    assert_eq!(world.node.run("nft list ruleset"), "");
}

#[test]
fn two_services_with_one_address_take_turns() {
    let mut world = World::new("turns");
    let spec = |cluster: &str| json!({"clusterIP": cluster, "externalIPs": ["198.51.100.7"]});
    world.set_named("one", spec("10.43.0.1"), ready(&[2]));
    world.set_named("two", spec("10.43.0.2"), ready(&[3]));
    assert_eq!(world.outside.call("198.51.100.7:80").0, "a");
    world.delete("one");
    assert_eq!(world.outside.call("198.51.100.7:80").0, "b");
}

#[test]
fn a_table_that_somebody_flushed_is_replaced_with_the_next_change() {
    let mut world = World::new("flushed");
    world.set(json!({}), ready(&[2]));
    world.node.run("nft flush ruleset");
    world.set_named("other", json!({"clusterIP": "10.43.0.2"}), ready(&[3]));
    assert_eq!(world.pod("c").call("10.43.0.1:80").0, "a");
    assert_eq!(world.pod("c").call("10.43.0.2:80").0, "b");
}

#[test]
fn a_thousand_services_of_ten_endpoints_are_one_transaction() {
    let mut world = World::new("thousand");
    let keys: Vec<_> = (0..1000_u32)
        .map(|n| {
            let cluster = format!("10.43.{}.{}", 1 + n / 250, 1 + n % 250);
            let endpoints: serde_json::Value = (0..10)
                .map(|e| json!({"addresses": [format!("10.42.{}.{}", 1 + n / 20, 1 + n % 20 * 10 + e)], "nodeName": "other"}))
                .collect();
            world.store(&format!("s{n}"), json!({"clusterIP": cluster}), endpoints)
        })
        .collect();
    world.update(&keys);
    let services = world.node.run("nft list map ip pintle_proxy services | grep -o 'goto service-' | wc -l");
    assert_eq!(services.trim(), "1000");
    // A change of one of them is seen among the others.
    world.set_named("s500", json!({"clusterIP": "10.43.3.1"}), ready(&[2]));
    assert_eq!(world.pod("b").call("10.43.3.1:80").0, "a");
}

/// The proxy as it runs on a node, in a thread of its own.
struct Running {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    fn start(world: &World, api: &FakeApi) -> Self {
        let stop = CancellationToken::new();
        let node = world.node.file.try_clone().expect("descriptor");
        let (client, token) = (api.client(), stop.clone());
        let thread = std::thread::spawn(move || {
            let ran = pintle_netlink::namespace::enter(node.as_fd(), || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
                runtime.block_on(async {
                    let informers = Informers::new(client, token.clone());
                    pintle_proxy::run(world::config(), informers, token).await
                })
            });
            ran.expect("enter").expect("run");
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.cancel();
        self.thread.join().expect("join");
    }
}

#[test]
fn what_the_api_server_tells_is_followed() {
    let world = World::new("informers");
    let api = FakeApi::new();
    let proxy = Running::start(&world, &api);
    let (service, slice) = world::objects("web", json!({}), ready(&[2]));
    api.put(&service);
    api.put(&slice);
    world.pod("c").call_until("10.43.0.1:80", "a");
    api.put(&world::objects("web", json!({}), ready(&[3])).1);
    world.pod("c").call_until("10.43.0.1:80", "b");
    proxy.stop();
    assert_eq!(world.pod("c").call("10.43.0.1:80").0, "b", "the rules outlive the process");
}

#[test]
fn load_balancers_are_told_where_endpoints_are_and_clients_are_led_within_their_zone() {
    let world = World::new("checks");
    let api = FakeApi::new();
    let proxy = Running::start(&world, &api);
    let spec = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32001,
        "ports": [{"port": 80, "nodePort": 30080}],
    });
    let (service, slice) = world::objects("web", spec.clone(), ready(&[2, 3]));
    api.put(&service);
    api.put(&slice);
    let answer = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\
                  \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
    let told = world.outside.get_until("192.0.2.1:32001", |told| told.starts_with("HTTP/1.1 200"));
    assert!(told.ends_with(answer), "{told}");
    assert!(told.contains("x-load-balancing-endpoint-weight: 2\r\n"), "{told}");
    let elsewhere = json!([{"addresses": ["10.42.0.4"], "nodeName": "other"}]);
    api.put(&world::objects("web", spec, elsewhere).1);
    let told = world.outside.get_until("192.0.2.1:32001", |told| told.starts_with("HTTP/1.1 503"));
    assert!(told.contains("\"localEndpoints\": 0,"), "{told}");

    let hinted = |last: u8, zone: &str| json!({"addresses": [format!("10.42.0.{last}")], "hints": {"forZones": [{"name": zone}]}});
    let (service, slice) = world::objects("web", json!({}), json!([hinted(2, "east"), hinted(3, "west")]));
    api.put(&service);
    api.put(&slice);
    for (zone, name) in [("west", "b"), ("east", "a")] {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        api.put(&Node::from_value(json!({"metadata": {"name": "node", "labels": labels}})).expect("a node"));
        let other = if name == "a" { "b" } else { "a" };
        world.pod("c").callees_until("10.43.0.1:80", 12, |callees| !callees.contains_key(other));
    }
    proxy.stop();
    assert_eq!(world.outside.open_in_vain("192.0.2.1:32001"), ErrorKind::ConnectionRefused);
}
