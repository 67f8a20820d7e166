//! Tables of what policies allow, by walking through what is planned, and of what changes cost; no kernel.

use crate::facts::{Direction, Labels, Pod, Protocol, RawPod, policy};
use crate::plan::{ChainId, Changes, Item, Line, Match, Plan, SetId};
use ipnet::IpNet;
use pintle_types::k8s::api::networking::v1::NetworkPolicy;
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::net::IpAddr;

const TCP: Protocol = 6;
const UDP: Protocol = 17;
const ICMP: Protocol = 1;

/// Pods `web`, `db` and `cache` of namespace `shop` at 10.42.0.1 to 3, `web` of `other` at 10.42.1.1; only those of
/// `shop` are on this node. `db` and the other `web` have a port 5432 that they call `sql`.
fn cluster() -> Plan {
    let mut plan = Plan::default();
    for (namespace, team) in [("shop", "a"), ("other", "b")] {
        plan.set_namespace(namespace, Some(labels(&[("kubernetes.io/metadata.name", namespace), ("team", team)])));
    }
    for (namespace, name, address) in [
        ("shop", "web", "10.42.0.1"),
        ("shop", "db", "10.42.0.2"),
        ("shop", "cache", "10.42.0.3"),
        ("other", "web", "10.42.1.1"),
    ] {
        plan.set_pod(&key(namespace, name), Some(pod(namespace, name, address)));
    }
    plan
}

fn pod(namespace: &str, name: &str, address: &str) -> Pod {
    let sql = (name == "db" || namespace == "other").then(|| (TCP, "sql".to_owned(), 5432));
    Pod {
        uid: format!("{namespace}-{name}"),
        labels: labels(&[("app", name)]),
        addresses: vec![address.parse().expect("an address")],
        named_ports: Vec::from_iter(sql),
        local: namespace == "shop",
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

fn set(plan: &mut Plan, namespace: &str, name: &str, spec: Value) {
    let object = NetworkPolicy::from_value(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}));
    plan.set_policy(&key(namespace, name), Some(policy(&object.expect("a policy"))));
}

/// Walks a packet through the planned table, as the kernel does.
fn passes(table: &Changes, from: &str, to: &str, protocol: Protocol, port: u16) -> bool {
    let packet = Packet { from: from.parse().expect("from"), to: to.parse().expect("to"), protocol, port };
    packet.from == packet.to || Direction::BOTH.iter().all(|direction| packet.is_let(*direction, table))
}

struct Packet {
    from: IpAddr,
    to: IpAddr,
    protocol: Protocol,
    port: u16,
}

impl Packet {
    fn is_let(&self, direction: Direction, table: &Changes) -> bool {
        let own = if direction == Direction::Ingress { self.to } else { self.from };
        let has = |set, item| table.new_elements.contains(&(set, item));
        if !has(SetId::Isolated(direction), Item::Address(own)) {
            return true;
        }
        assert!(has(SetId::Own, Item::Address(own)), "what is isolated can always reach itself");
        table.new_chains[&ChainId::Pod(own, direction)].iter().any(|line| match line {
            Line::Jump(id) => table.new_chains[&ChainId::Policy(*id, direction)].iter().any(|line| match line {
                Line::Accept(packets) => self.is_accepted(packets, direction, table),
                other => panic!("{other:?} in a policy's chain"),
            }),
            Line::Drop => false,
            Line::Accept(_) => panic!("a pod's chain accepts by itself"),
        })
    }

    fn is_accepted(&self, packets: &Match, direction: Direction, table: &Changes) -> bool {
        let peer = if direction == Direction::Ingress { self.from } else { self.to };
        let has = |set: SetId, item| {
            assert!(table.new_sets.contains(&set), "{set:?} is looked into and not there");
            table.new_elements.contains(&(set, item))
        };
        let in_block =
            |(net, except): &(IpNet, Vec<IpNet>)| net.contains(&peer) && !except.iter().any(|net| net.contains(&peer));
        packets.peers.is_none_or(|set| has(set, Item::Address(peer)))
            && packets.block.as_ref().is_none_or(in_block)
            && packets
                .range
                .is_none_or(|range| range.protocol == self.protocol && (range.first..=range.last).contains(&self.port))
            && packets.named.is_none_or(|set| has(set, Item::Socket(self.to, self.protocol, self.port)))
    }
}

const WEB: &str = "10.42.0.1";
const DB: &str = "10.42.0.2";
const CACHE: &str = "10.42.0.3";
const OTHER: &str = "10.42.1.1";
const OUTSIDE: &str = "192.0.2.77";

/// Checks which of some packets pass under one policy of `shop`.
fn check(spec: Value, cases: &[(&str, &str, Protocol, u16, bool)]) {
    let mut plan = cluster();
    set(&mut plan, "shop", "policy", spec.clone());
    let table = plan.everything();
    for (from, to, protocol, port, expected) in cases {
        let passes = passes(&table, from, to, *protocol, *port);
        assert_eq!(passes, *expected, "{from} to {to} by {protocol} at {port} under {spec}");
    }
}

#[test]
fn a_policy_isolates_whom_it_selects_in_the_directions_that_it_names() {
    let db = json!({"matchLabels": {"app": "db"}});
    check(
        json!({"podSelector": db}),
        &[
            (WEB, DB, TCP, 5432, false),
            (OUTSIDE, DB, TCP, 5432, false),
            (OTHER, DB, ICMP, 0, false),
            (DB, DB, TCP, 5432, true),
            (DB, WEB, TCP, 80, true),
            (WEB, CACHE, TCP, 80, true),
        ],
    );
    check(
        json!({"podSelector": {}, "policyTypes": ["Egress"]}),
        &[
            (WEB, DB, TCP, 5432, false),
            (WEB, OUTSIDE, TCP, 443, false),
            (OUTSIDE, DB, TCP, 5432, true),
            (OTHER, DB, TCP, 5432, true),
        ],
    );
    // Rules for packets out of the pod, and no types: both directions are isolated.
    check(json!({"podSelector": db, "egress": [{}]}), &[(DB, WEB, TCP, 80, true), (WEB, DB, TCP, 80, false)]);
    check(
        json!({"podSelector": db, "ingress": [{}], "policyTypes": ["Ingress"]}),
        &[(OUTSIDE, DB, ICMP, 0, true), (DB, OUTSIDE, TCP, 1, true)],
    );
    check(json!({"podSelector": {"matchLabels": {"app": "nobody"}}}), &[(WEB, DB, TCP, 5432, true)]);
}

#[test]
fn peers_are_pods_of_namespaces_or_blocks() {
    let from = |peers: Value| json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": peers}]});
    let web = json!({"matchLabels": {"app": "web"}});
    let team_b = json!({"matchLabels": {"team": "b"}});
    for (peers, of_web, of_cache, of_other, of_outside) in [
        (json!([]), true, true, true, true),
        (json!([{"podSelector": web}]), true, false, false, false),
        (json!([{"podSelector": {}}]), true, true, false, false),
        (json!([{"namespaceSelector": team_b}]), false, false, true, false),
        (json!([{"namespaceSelector": {}}]), true, true, true, false),
        (json!([{"namespaceSelector": {}, "podSelector": web}]), true, false, true, false),
        (
            json!([{"namespaceSelector": team_b, "podSelector": {"matchLabels": {"app": "db"}}}]),
            false,
            false,
            false,
            false,
        ),
        (json!([{"podSelector": web}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]), true, false, false, true),
        (
            json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.42.0.0/24", "192.0.2.64/26"]}}]),
            false,
            false,
            true,
            false,
        ),
        (json!([{"ipBlock": {"cidr": "2001:db8::/32"}}]), false, false, false, false),
    ] {
        check(
            from(peers),
            &[
                (WEB, DB, TCP, 5432, of_web),
                (CACHE, DB, UDP, 53, of_cache),
                (OTHER, DB, ICMP, 0, of_other),
                (OUTSIDE, DB, TCP, 9, of_outside),
            ],
        );
    }
}

#[test]
fn ports_are_numbers_ranges_or_names_of_the_destination() {
    let ingress = |ports: Value| json!({"podSelector": {}, "ingress": [{"ports": ports}]});
    check(
        ingress(json!([{"port": 80}])),
        &[(WEB, DB, TCP, 80, true), (WEB, DB, TCP, 81, false), (WEB, DB, UDP, 80, false), (WEB, DB, ICMP, 0, false)],
    );
    check(
        ingress(json!([{"protocol": "UDP"}, {"port": 8000, "endPort": 8010}])),
        &[
            (WEB, DB, UDP, 5, true),
            (WEB, DB, TCP, 7999, false),
            (WEB, DB, TCP, 8000, true),
            (WEB, DB, TCP, 8010, true),
            (WEB, DB, TCP, 8011, false),
        ],
    );
    check(
        ingress(json!([{"port": "sql"}])),
        &[(WEB, DB, TCP, 5432, true), (WEB, DB, UDP, 5432, false), (WEB, CACHE, TCP, 5432, false)],
    );
    let egress = |to: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to, "ports": [{"port": "sql"}]}]});
    for (to, to_db, to_other) in [
        (json!([]), true, true),
        (json!([{"podSelector": {}}]), true, false),
        (json!([{"ipBlock": {"cidr": "10.42.1.0/24"}}]), false, true),
    ] {
        check(
            egress(to),
            &[
                (WEB, DB, TCP, 5432, to_db),
                (WEB, OTHER, TCP, 5432, to_other),
                (WEB, OTHER, TCP, 80, false),
                (WEB, OUTSIDE, TCP, 5432, false),
            ],
        );
    }
}

#[test]
fn policies_add_up_and_both_ends_must_agree() {
    let mut plan = cluster();
    let select = |app: &str| json!({"matchLabels": {"app": app}});
    set(&mut plan, "shop", "closed", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    assert!(!passes(&plan.everything(), WEB, DB, TCP, 5432));
    set(
        &mut plan,
        "shop",
        "db",
        json!({"podSelector": select("db"), "ingress": [{"from": [{"podSelector": select("web")}]}]}),
    );
    assert!(!passes(&plan.everything(), WEB, DB, TCP, 5432), "web may not send yet");
    let out =
        json!({"podSelector": select("web"), "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]});
    set(&mut plan, "shop", "web", out);
    let table = plan.everything();
    assert!(passes(&table, WEB, DB, TCP, 5432));
    assert!(!passes(&table, WEB, CACHE, TCP, 80) && !passes(&table, CACHE, DB, TCP, 5432));
}

#[test]
fn what_changes_is_followed() {
    let mut plan = cluster();
    let from_b = json!([{"namespaceSelector": {"matchLabels": {"team": "b"}}}]);
    set(
        &mut plan,
        "shop",
        "policy",
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": from_b}]}),
    );
    let open = |plan: &mut Plan, from, to| passes(&plan.everything(), from, to, TCP, 5432);
    assert!(open(&mut plan, OTHER, DB) && !open(&mut plan, WEB, DB));
    plan.set_namespace("other", Some(labels(&[("team", "c")])));
    plan.set_namespace("shop", Some(labels(&[("team", "b")])));
    assert!(!open(&mut plan, OTHER, DB) && open(&mut plan, WEB, DB));
    plan.set_pod(&key("shop", "web"), None);
    assert!(!open(&mut plan, WEB, DB), "the address is nobody's");
    plan.set_pod(&key("shop", "late"), Some(pod("shop", "late", WEB)));
    assert!(open(&mut plan, WEB, DB));
    let mut renamed = pod("shop", "db", DB);
    renamed.labels = labels(&[("app", "free")]);
    plan.set_pod(&key("shop", "db"), Some(renamed));
    assert!(open(&mut plan, OUTSIDE, DB), "it is not selected any more");
}

/// The changes that one call makes, in numbers: chains new, changed, gone; sets new, gone; elements new, gone.
fn cost(plan: &mut Plan, change: impl FnOnce(&mut Plan)) -> [usize; 7] {
    change(plan);
    let c = plan.take_changes();
    [
        c.new_chains.len(),
        c.changed_chains.len(),
        c.gone_chains.len(),
        c.new_sets.len(),
        c.gone_sets.len(),
        c.new_elements.len(),
        c.gone_elements.len(),
    ]
}

#[test]
fn a_change_costs_what_it_changes() {
    let mut plan = cluster();
    let peers = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [{"podSelector": {}}]}]});
    assert_eq!(cost(&mut plan, |_| ()), [0; 7], "pods without policies are nothing to the kernel");
    // Policy's chain and pod's chain; the peers' set; three peers, an isolated pod, and its pair.
    assert_eq!(cost(&mut plan, |plan| set(plan, "shop", "one", peers.clone())), [2, 0, 0, 1, 0, 5, 0]);
    assert_eq!(cost(&mut plan, |plan| set(plan, "shop", "one", peers.clone())), [0; 7], "the same again");
    let far = Pod { local: false, ..pod("shop", "far", "10.42.2.1") };
    assert_eq!(cost(&mut plan, |plan| plan.set_pod(&key("shop", "far"), Some(far))), [0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(cost(&mut plan, |plan| plan.set_pod(&key("shop", "far"), None)), [0, 0, 0, 0, 0, 0, 1]);
    let elsewhere = pod("other", "more", "10.42.2.2");
    assert_eq!(cost(&mut plan, |plan| plan.set_pod(&key("other", "more"), Some(elsewhere))), [0; 7]);
    // A policy of a namespace without pods here.
    assert_eq!(cost(&mut plan, |plan| set(plan, "other", "away", json!({"podSelector": {}}))), [0; 7]);
    // Its own chain; the pod's one changes.
    let second = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{}]});
    assert_eq!(cost(&mut plan, |plan| set(plan, "shop", "two", second)), [1, 1, 0, 0, 0, 0, 0]);
    let remove = |plan: &mut Plan| {
        plan.set_policy(&key("shop", "one"), None);
        plan.set_policy(&key("shop", "two"), None);
    };
    // Elements of the set go with it: those of the isolated pod are left.
    assert_eq!(cost(&mut plan, remove), [0, 0, 3, 0, 1, 0, 2]);
    assert!(plan.is_idle() && plan.everything().is_empty());
}

#[test]
fn an_address_that_two_pods_have_for_a_moment_stays_isolated() {
    let mut plan = cluster();
    set(&mut plan, "shop", "closed", json!({"podSelector": {}}));
    plan.take_changes();
    plan.set_pod(&key("shop", "new"), Some(pod("shop", "new", DB)));
    plan.set_pod(&key("shop", "db"), None);
    assert!(plan.take_changes().is_empty());
    assert!(!passes(&plan.everything(), WEB, DB, TCP, 5432));
}

#[test]
fn pods_are_read_or_left_out() {
    let read = |spec: Value, status: Value| {
        let raw = json!({"metadata": {"name": "p", "uid": "u", "labels": {"a": "b"}}, "spec": spec, "status": status});
        serde_json::from_value::<RawPod>(raw).expect("a pod").facts("here")
    };
    let port = |name: &str, number: i32| json!({"ports": [{"name": name, "containerPort": number, "protocol": "UDP"}]});
    let full = read(
        json!({"nodeName": "here", "containers": [port("dns", 53), {"ports": [{"containerPort": 1}]}], "initContainers": [
            {"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 9}]}, port("once", 7),
        ]}),
        json!({"phase": "Running", "podIP": "10.42.0.9", "podIPs": [{"ip": "10.42.0.9"}, {"ip": "fd00::9"}]}),
    );
    let full = full.expect("it counts");
    assert_eq!(full.addresses, ["10.42.0.9", "fd00::9"].map(|ip| ip.parse::<IpAddr>().expect("address")));
    assert_eq!(full.named_ports, [(UDP, "dns".to_owned(), 53), (TCP, "side".to_owned(), 9)]);
    assert!(full.local && full.uid == "u" && full.labels == labels(&[("a", "b")]));
    let container = json!([{}]);
    assert_eq!(read(json!({"containers": container, "hostNetwork": true}), json!({"podIP": "192.0.2.1"})), None);
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(read(json!({"containers": container}), json!({"phase": phase, "podIP": "10.42.0.9"})), None);
    }
    let away = read(json!({"containers": container, "nodeName": "there"}), json!({"podIP": "10.42.0.9"}));
    assert!(away.is_some_and(|pod| !pod.local && pod.addresses.len() == 1));
}

#[test]
fn many_policies_and_pods_are_planned_at_once() {
    let mut plan = Plan::default();
    plan.set_namespace("shop", Some(labels(&[("team", "a")])));
    for n in 0..2_000_u32 {
        let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a2a_0000 + n));
        let pod = Pod {
            uid: n.to_string(),
            labels: labels(&[("app", "web"), ("group", &(n % 100).to_string())]),
            addresses: vec![address],
            local: n < 100,
            ..Pod::default()
        };
        plan.set_pod(&key("shop", &format!("pod-{n}")), Some(pod));
    }
    for n in 0..200 {
        let group = json!({"matchLabels": {"group": (n % 100).to_string()}});
        let from = json!([{"from": [{"podSelector": group}], "ports": [{"port": 80}]}]);
        set(&mut plan, "shop", &format!("policy-{n}"), json!({"podSelector": group, "ingress": from}));
    }
    let all = plan.take_changes();
    assert_eq!((all.new_chains.len(), all.new_sets.len()), (300, 200), "two policies for each of 100 pods");
    assert_eq!(all.new_elements.len(), 200 * 20 + 100 + 100);
    let change = cost(&mut plan, |plan| plan.set_pod(&key("shop", "pod-1999"), None));
    assert_eq!(change, [0, 0, 0, 0, 0, 0, 2]);
}
