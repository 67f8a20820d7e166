//! Tables of what is chosen, planned and changed; no kernel.

use crate::collect::{Place, endpoints_of, ports_of};
use crate::ledger::Ledger;
use crate::plan::{Chain, Endpoint, Hint, Map, ServicePort, ServiceRules, Target, choose, plan};
use pintle_netlink::nft::Family;
use pintle_types::k8s::api::core::v1::Service;
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::net::IpAddr;

/// An endpoint in short: its number, then `r`eady, `s`erving, `t`erminating, `l`ocal, `n`ode and `z`one hints for
/// here, `N` and `Z` for elsewhere.
fn endpoint(text: &str) -> Endpoint {
    let (number, flags) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let has = |flag: char| flags.contains(flag);
    let hint = |here: char, elsewhere: char| match (has(here), has(elsewhere)) {
        (true, _) => Hint::Here,
        (_, true) => Hint::Elsewhere,
        _ => Hint::None,
    };
    Endpoint {
        address: IpAddr::from([10, 42, 0, number.parse().expect("a number")]),
        port: 8080,
        ready: has('r'),
        serving: has('r') || has('s'),
        terminating: has('t'),
        local: Some(has('l')),
        node_hint: hint('n', 'N'),
        zone_hint: hint('z', 'Z'),
    }
}

fn numbers(endpoints: &[Endpoint]) -> String {
    let last = |endpoint: &Endpoint| match endpoint.address {
        IpAddr::V4(v4) => v4.octets()[3].to_string(),
        IpAddr::V6(_) => "v6".into(),
    };
    endpoints.iter().map(last).collect::<Vec<_>>().join(" ")
}

#[test]
fn endpoints_are_chosen_as_kube_proxy_does() {
    let inside = ServicePort { name: "a/b/tcp/".into(), port: 80, ..ServicePort::default() };
    let node_port = ServicePort { node_port: Some(30_000), ..inside.clone() };
    let external_local = ServicePort { external_local: true, ..node_port.clone() };
    let internal_local = ServicePort { internal_local: true, ..inside.clone() };
    for (port, endpoints, cluster, local, any) in [
        (&inside, "", "", "", false),
        (&inside, "1r 2r 3", "1 2", "", true),
        (&inside, "1 2st 3s", "2", "", true),
        (&inside, "1r 2st", "1", "", true),
        (&inside, "1 2s", "", "", false),
        // Hints count when all ready endpoints have one, and one is for here.
        (&inside, "1rz 2rZ", "1", "", true),
        (&inside, "1rz 2r", "1 2", "", true),
        (&inside, "1rZ 2rZ", "1 2", "", true),
        (&inside, "1rzN 2rZn", "2", "", true),
        (&inside, "1rz 2Z", "1", "", true),
        (&inside, "1stZ 2sz", "1", "", true),
        // Policies.
        (&node_port, "1rl 2r", "1 2", "", true),
        (&external_local, "1rl 2r", "1 2", "1", true),
        (&external_local, "1stl 2r", "2", "1", true),
        (&external_local, "1r", "1", "", true),
        (&internal_local, "1rl 2r", "", "1", true),
        (&internal_local, "1r", "", "", true),
        (&internal_local, "1", "", "", false),
    ] {
        let endpoints: Vec<Endpoint> = endpoints.split_whitespace().map(endpoint).collect();
        let choice = choose(port, &endpoints);
        assert_eq!(
            (numbers(&choice.cluster), numbers(&choice.local), choice.any),
            (cluster.into(), local.into(), any),
            "{endpoints:?}"
        );
    }
}

fn service(spec: Value) -> Service {
    Service::from_value(json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": spec})).expect("a service")
}

#[test]
fn services_are_read_or_left_out() {
    let full = service(json!({
        "type": "LoadBalancer", "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1", "fd43::1"],
        "ports": [
            {"name": "http", "port": 80, "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "bad", "port": 0}, {"name": "odd", "port": 9, "protocol": "X"},
        ],
        "externalIPs": ["198.51.100.1", "2001:db8::1"], "sessionAffinity": "ClientIP",
        "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster",
        "loadBalancerSourceRanges": ["192.0.2.0/24", " 203.0.113.0/24", "nonsense"],
    }));
    let ports = ports_of(&full, Family::Ip);
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["ns/web/tcp/http", "ns/web/udp/dns"]);
    let http = &ports[0];
    assert_eq!(http.cluster_addresses, [IpAddr::from([10, 43, 0, 1])]);
    assert_eq!(http.external_addresses, [IpAddr::from([198, 51, 100, 1])]);
    assert_eq!((http.node_port, http.affinity_ms), (Some(30_080), Some(10_800_000)));
    assert_eq!((http.external_local, http.internal_local, http.source_ranges.len()), (true, false, 2));

    let six = &ports_of(&full, Family::Ip6)[0];
    assert_eq!(six.cluster_addresses, ["fd43::1".parse::<IpAddr>().expect("address")]);
    assert_eq!(six.external_addresses, ["2001:db8::1".parse::<IpAddr>().expect("address")]);
    assert_eq!((six.node_port, six.source_ranges.len()), (Some(30_080), 0));

    for left_out in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.org"}),
        json!({"ports": [{"port": 80}]}),
    ] {
        assert_eq!(ports_of(&service(left_out.clone()), Family::Ip), [], "{left_out}");
    }
    let mut other = service(json!({"clusterIP": "10.43.0.1", "ports": [{"port": 80}]}));
    let labels = [("service.kubernetes.io/service-proxy-name".to_owned(), "other".to_owned())];
    other.metadata.labels = Some(labels.into());
    assert_eq!(ports_of(&other, Family::Ip), []);
}

#[test]
fn endpoints_are_read_once_each_from_all_slices() {
    let slice = |endpoints: Value, ports: Value| {
        EndpointSlice::from_value(
            json!({"addressType": "IPv4", "metadata": {}, "endpoints": endpoints, "ports": ports}),
        )
        .expect("a slice")
    };
    let port = |name: &str| ServicePort { name: format!("ns/web/tcp/{name}"), protocol: 6, ..ServicePort::default() };
    let slices = [
        slice(
            json!([
                {"addresses": ["10.42.0.1"], "nodeName": "here", "conditions": {"ready": false, "serving": true}},
                {"addresses": ["10.42.0.2"], "hints": {"forZones": [{"name": "x"}, {"name": "z"}]}},
                {"addresses": ["not an address"]},
            ]),
            json!([{"name": "http", "port": 8080}, {"name": "http", "port": 9, "protocol": "UDP"}, {"name": "none"}]),
        ),
        slice(json!([{"addresses": ["10.42.0.1"], "nodeName": "here"}]), json!([{"name": "http", "port": 8080}])),
    ];
    let place = Place { node: "here".into(), zone: Some("z".into()) };
    let found = endpoints_of(Family::Ip, &port("http"), slices.iter(), &place);
    assert_eq!(numbers(&found), "1 2");
    assert_eq!((found[0].ready, found[0].local, found[0].port), (true, Some(true), 8080), "the ready one of the two");
    assert_eq!((found[1].local, found[1].zone_hint, found[1].node_hint), (None, Hint::Here, Hint::None));
    assert_eq!(endpoints_of(Family::Ip6, &port("http"), slices.iter(), &place), []);
    assert_eq!(endpoints_of(Family::Ip, &port("none"), slices.iter(), &place), []);
    assert_eq!(endpoints_of(Family::Ip, &port("other"), slices.iter(), &place), []);
}

fn rules(cluster: u8, endpoints: &str) -> ServiceRules {
    let port = ServicePort {
        name: format!("ns/s{cluster}/tcp/"),
        protocol: 6,
        port: 80,
        cluster_addresses: vec![IpAddr::from([10, 43, 0, cluster])],
        external_addresses: vec![IpAddr::from([198, 51, 100, 1])],
        ..ServicePort::default()
    };
    plan(&[(port, endpoints.split_whitespace().map(endpoint).collect())])
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

#[test]
fn a_change_costs_what_it_changes() {
    let mut ledger = Ledger::default();
    let first = ledger.replace(vec![(key("one"), Some(rules(1, "1r 2r")))]);
    assert_eq!(first.new_chains.len(), 2, "service and outside: {first:?}");
    assert!(first.gone_chains.is_empty() && first.gone_elements.is_empty());
    assert!(ledger.replace(vec![(key("one"), Some(rules(1, "1r 2r")))]).is_empty(), "nothing changed");
    assert!(ledger.replace(vec![(key("none"), None)]).is_empty());

    // One endpoint more: only the chain that spreads over them changes.
    let more = ledger.replace(vec![(key("one"), Some(rules(1, "1r 2r 3r")))]);
    assert_eq!(more.changed_chains.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["service-ns/s1/tcp/"]);
    assert_eq!((more.new_chains.len(), more.gone_elements.len(), more.new_elements.len()), (0, 0, 0));

    // The last endpoint goes: the elements move to the maps of those without.
    let empty = ledger.replace(vec![(key("one"), Some(rules(1, "")))]);
    assert_eq!(empty.gone_chains.len(), 2);
    let maps = |elements: &[(crate::plan::Element, Target)]| {
        let mut maps: Vec<Map> = elements.iter().map(|((map, _), _)| *map).collect();
        maps.sort_unstable();
        maps
    };
    assert_eq!(maps(&empty.gone_elements), [Map::Services, Map::Services]);
    assert_eq!(maps(&empty.new_elements), [Map::EmptyServices, Map::EmptyServices]);
    assert!(empty.new_elements.iter().all(|(_, target)| *target == Target::Reject));

    let gone = ledger.replace(vec![(key("one"), None)]);
    assert_eq!(maps(&gone.gone_elements), [Map::EmptyServices, Map::EmptyServices, Map::ClusterAddresses]);
    assert!(ledger.everything().is_empty());
}

#[test]
fn an_element_that_changes_hands_changes_once() {
    let mut ledger = Ledger::default();
    ledger.replace(vec![(key("one"), Some(rules(1, "1r"))), (key("two"), Some(rules(2, "2r")))]);
    let external = |changes: &[(crate::plan::Element, Target)]| {
        let of_external = changes.iter().filter(|((map, key), _)| *map == Map::Services && key.as_slice()[0] == 198);
        of_external.map(|(_, target)| target.clone()).collect::<Vec<_>>()
    };
    let chain = |n: u8| Target::Chain(format!("outside-ns/s{n}/tcp/").into());
    assert_eq!(external(&ledger.everything().new_elements), [chain(1)], "the first one has it");
    let moved = ledger.replace(vec![(key("one"), None)]);
    assert_eq!((external(&moved.gone_elements), external(&moved.new_elements)), (vec![chain(1)], vec![chain(2)]));
    // Away and back within one transaction.
    let both = ledger.replace(vec![(key("two"), None), (key("three"), Some(rules(2, "2r")))]);
    assert_eq!((external(&both.gone_elements), external(&both.new_elements)), (vec![], vec![]));
}

#[test]
fn hairpin_elements_outlive_their_endpoints() {
    let mut ledger = Ledger::default();
    let hairpins = |changes: &[(crate::plan::Element, Target)]| {
        changes.iter().filter(|((map, _), _)| *map == Map::Hairpin).count()
    };
    let mut change = |endpoints| {
        let changes = ledger.replace(vec![(key("one"), Some(rules(1, endpoints)))]);
        (hairpins(&changes.new_elements), hairpins(&changes.gone_elements))
    };
    assert_eq!(change("1rl"), (1, 0));
    assert_eq!(change("2rl"), (1, 0), "packets that were led to the first one may still be on their way");
    assert_eq!(change("1rl 2rl"), (0, 0), "it is still there");
    let whole = ledger.everything();
    assert_eq!(hairpins(&whole.new_elements), 2, "a table that begins empty has only what is wanted");
}

#[test]
fn affinity_gives_every_endpoint_a_set_of_clients() {
    let port = ServicePort {
        name: "ns/web/tcp/".into(),
        port: 80,
        cluster_addresses: vec![IpAddr::from([10, 43, 0, 1])],
        affinity_ms: Some(5000),
        ..ServicePort::default()
    };
    let rules = plan(&[(port, vec![endpoint("1r"), endpoint("2r")])]);
    assert_eq!(rules.sets.values().collect::<Vec<_>>(), [&5000, &5000]);
    let Some(Chain::Affine { endpoints }) = rules.chains.get("service-ns/web/tcp/") else { panic!("{rules:?}") };
    assert!(
        endpoints.iter().all(|(chain, clients)| rules.chains.contains_key(chain) && rules.sets.contains_key(clients))
    );
}
