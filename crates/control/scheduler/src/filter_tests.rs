//! Tables of refusals, plugin by plugin: what fits at the edge and what does not; ties, turns and counts that are kept.

use crate::profile::Profile;
use crate::tests::{merge, node, pod, snapshot};
use crate::{PodInfo, Snapshot, default_profile};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

#[track_caller]
fn check(pod: &PodInfo, state: &Snapshot, expected: Result<&str, &str>) {
    check_by(Profile::named("p"), pod, state, expected);
}

#[track_caller]
fn check_by(profile: Profile, pod: &PodInfo, state: &Snapshot, expected: Result<&str, &str>) {
    let result = crate::schedule(pod, &Arc::new(profile), state, 0, &mut StdRng::seed_from_u64(1));
    let result = result.map(|choice| choice.node.to_owned()).map_err(|misfit| misfit.to_string());
    let expected = expected.map(str::to_owned).map_err(|why| {
        let nodes = state.known_nodes();
        format!("0/{nodes} nodes are available: {why}.")
    });
    assert_eq!(result, expected);
}

fn zoned(name: &str, zone: &str) -> Arc<pintle_types::k8s::api::core::v1::Node> {
    node(name, json!({ "metadata": { "labels": { "zone": zone } } }))
}

fn asking(requests: Value) -> Arc<PodInfo> {
    pod("p", json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": requests } }] } }))
}

#[test]
fn resources_fit_to_the_last_unit() {
    let one = |more: Value| snapshot(&[node("a", json!({ "status": { "allocatable": more } }))], &[]);
    check(&asking(json!({ "cpu": "2", "memory": "4Gi" })), &one(json!({})), Ok("a"));
    check(&asking(json!({ "cpu": "2001m" })), &one(json!({})), Err("1 Insufficient cpu"));
    check(&asking(json!({ "memory": "4294967297" })), &one(json!({})), Err("1 Insufficient memory"));
    let disk = asking(json!({ "ephemeral-storage": "2Gi" }));
    check(&disk, &one(json!({ "ephemeral-storage": "1Gi" })), Err("1 Insufficient ephemeral-storage"));
    let gpu = asking(json!({ "example.com/gpu": "2", "hugepages-2Mi": "4Mi" }));
    check(
        &gpu,
        &one(json!({ "example.com/gpu": "1" })),
        Err("1 Insufficient example.com/gpu, 1 Insufficient hugepages-2Mi"),
    );
    check(&asking(json!({})), &one(json!({ "pods": "0" })), Err("1 Too many pods"));
    let mut lenient = Profile::named("p");
    lenient.ignored_resources = vec!["hugepages-2Mi".into()];
    lenient.ignored_groups = vec!["example.com".into()];
    check_by(lenient, &gpu, &one(json!({})), Ok("a"));
}

// "Pod Topology Spread Constraints": 3 pods over 2 zones, 2 and 1; maxSkew 1 sends the fourth to the second zone.
#[test]
fn the_spread_example_of_the_documentation() {
    let labelled = |name| pod(name, json!({ "metadata": { "labels": { "foo": "bar" } } }));
    let nodes = [zoned("node1", "zoneA"), zoned("node2", "zoneA"), zoned("node3", "zoneB"), zoned("node4", "zoneB")];
    let running = [(labelled("1"), "node1"), (labelled("2"), "node2"), (labelled("3"), "node3")];
    let constraint = |key: &str, more: Value| {
        let mut constraint = json!({ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": { "matchLabels": { "foo": "bar" } } });
        merge(&mut constraint, more);
        constraint
    };
    let with = |constraints: Vec<Value>| {
        pod(
            "mypod",
            json!({ "metadata": { "labels": { "foo": "bar" } },
            "spec": { "topologySpreadConstraints": constraints } }),
        )
    };
    let by_zone = constraint("zone", json!({}));
    let by_node = constraint("kubernetes.io/hostname", json!({}));
    let state = snapshot(&nodes, &running);
    check(&with(vec![by_zone.clone(), by_node.clone()]), &state, Ok("node4"));
    // Two zones of three and two nodes: the constraints contradict each other.
    let three = [zoned("node1", "zoneA"), zoned("node2", "zoneA"), zoned("node3", "zoneB")];
    let running = [
        (labelled("1"), "node1"),
        (labelled("2"), "node1"),
        (labelled("3"), "node2"),
        (labelled("4"), "node3"),
        (labelled("5"), "node3"),
    ];
    let conflict = "3 node(s) didn't match pod topology spread constraints";
    check(&with(vec![by_zone.clone(), by_node]), &snapshot(&three, &running), Err(conflict));
    // A zone that the pod's node affinity leaves out does not count.
    let mut excluding = with(vec![by_zone]).pod.as_ref().clone();
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "zone", "operator": "NotIn", "values": ["zoneC"] }] }] } } });
    excluding.spec.as_mut().unwrap().affinity = Some(serde_json::from_value(affinity).unwrap());
    let five = [
        zoned("node1", "zoneA"),
        zoned("node2", "zoneA"),
        zoned("node3", "zoneB"),
        zoned("node4", "zoneB"),
        zoned("node5", "zoneC"),
    ];
    let running = [(labelled("1"), "node1"), (labelled("2"), "node2"), (labelled("3"), "node3")];
    let chosen = crate::tests::schedule(
        &PodInfo::new(Arc::new(excluding)),
        &snapshot(&five, &running),
        0,
        &mut StdRng::seed_from_u64(1),
    )
    .map(str::to_owned);
    assert!(matches!(chosen.as_deref(), Ok("node3" | "node4")), "{chosen:?}");
    let few = with(vec![constraint("zone", json!({ "minDomains": 3 }))]);
    let two = snapshot(&nodes, &[(labelled("1"), "node1"), (labelled("3"), "node3")]);
    check(&few, &two, Err("4 node(s) didn't match pod topology spread constraints"));
    let plain = snapshot(&[node("a", json!({}))], &[]);
    let lacking = "1 node(s) didn't match pod topology spread constraints (missing required label)";
    check(&few, &plain, Err(lacking));
}

// The same page: how that example changes by a larger skew, by nodes in the place of zones, by a soft constraint; and
// its conventions: whoever lacks a label is passed by, and pods that don't match themselves change nothing.
#[test]
fn the_variations_of_the_spread_example() {
    let labelled = |name| pod(name, json!({ "metadata": { "labels": { "foo": "bar" } } }));
    let nodes = [zoned("node1", "zoneA"), zoned("node2", "zoneA"), zoned("node3", "zoneB"), zoned("node4", "zoneB")];
    let running = [(labelled("1"), "node1"), (labelled("2"), "node2"), (labelled("3"), "node3")];
    let state = snapshot(&nodes, &running);
    let mypod = |skew: i32, key: &str, when: &str, foo: &str| {
        let constraint = json!({ "maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when,
            "labelSelector": { "matchLabels": { "foo": "bar" } } });
        let labels = json!({ "foo": foo });
        pod("mypod", json!({ "metadata": { "labels": labels }, "spec": { "topologySpreadConstraints": [constraint] } }))
    };
    let placeable = |pod: &PodInfo, state: &Snapshot| -> Vec<String> {
        let only = |name: &str| {
            let mut one = pod.pod.as_ref().clone();
            one.spec.as_mut().unwrap().node_name = Some(name.to_owned());
            crate::tests::schedule(&PodInfo::new(Arc::new(one)), state, 0, &mut StdRng::seed_from_u64(1)).is_ok()
        };
        let names = state.nodes().iter().map(|node| node.name.clone());
        names.filter(|name| only(name)).collect()
    };
    let hostname = "kubernetes.io/hostname";
    for (pod, expected) in [
        (mypod(1, "zone", "DoNotSchedule", "bar"), &["node3", "node4"][..]),
        (mypod(2, "zone", "DoNotSchedule", "bar"), &["node1", "node2", "node3", "node4"]),
        (mypod(1, hostname, "DoNotSchedule", "bar"), &["node4"]),
        (mypod(1, "zone", "ScheduleAnyway", "bar"), &["node1", "node2", "node3", "node4"]),
        // Not one of those that are counted: of two and one, the difference is within the limit already.
        (mypod(1, "zone", "DoNotSchedule", "other"), &["node1", "node2", "node3", "node4"]),
    ] {
        assert_eq!(placeable(&pod, &state), expected);
    }
    // Without the label "zone", the two pods of node1 don't count, and node1 is no choice.
    let three = [node("node1", json!({})), zoned("node2", "zoneA"), zoned("node3", "zoneB")];
    let running = [("1", "node1"), ("2", "node1"), ("3", "node2"), ("4", "node3"), ("5", "node3")];
    let running = running.map(|(name, node)| (labelled(name), node));
    let mypod = mypod(1, "zone", "DoNotSchedule", "bar");
    assert_eq!(placeable(&mypod, &snapshot(&three, &running)), ["node2"]);
}

// "Taints and Tolerations": three taints, of which the pod bears the two of key1.
#[test]
fn the_taints_of_the_documentation() {
    let taint = |key: &str, effect: &str| json!({ "key": key, "value": key.replace("key", "value"), "effect": effect });
    let bears = |effect: &str| json!({ "key": "key1", "operator": "Equal", "value": "value1", "effect": effect });
    let tolerant = pod("p", json!({ "spec": { "tolerations": [bears("NoSchedule"), bears("NoExecute")] } }));
    let with = |taints: Value| snapshot(&[node("node1", json!({ "spec": { "taints": taints } }))], &[]);
    let of_key1 = [taint("key1", "NoSchedule"), taint("key1", "NoExecute")];
    check(&tolerant, &with(json!(of_key1)), Ok("node1"));
    let third = with(json!([of_key1[0], of_key1[1], taint("key2", "NoSchedule")]));
    check(&tolerant, &third, Err("1 node(s) had untolerated taint(s)"));
    check(&tolerant, &with(json!([taint("key2", "PreferNoSchedule")])), Ok("node1"));
    let cordoned = snapshot(&[node("node1", json!({ "spec": { "unschedulable": true } }))], &[]);
    check(&tolerant, &cordoned, Err("1 node(s) were unschedulable"));
    let drained = json!([{ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" }]);
    check(&pod("p", json!({ "spec": { "tolerations": drained } })), &cordoned, Ok("node1"));
}

// "Inter-pod affinity and anti-affinity", more practical use-cases: three caches and three web servers, one of each on
// each of three nodes; there is no place for a fourth.
#[test]
fn the_caches_and_servers_of_the_documentation() {
    let rule = |app: &str| {
        let selector = json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": [app] }] });
        let term = json!({ "labelSelector": selector, "topologyKey": "kubernetes.io/hostname" });
        json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] })
    };
    let made = |name: &str, app: &str, affinity: Value| {
        pod(name, json!({ "metadata": { "labels": { "app": app } }, "spec": { "affinity": affinity } }))
    };
    let cache = |name: &str| made(name, "store", json!({ "podAntiAffinity": rule("store") }));
    let server = |name: &str| {
        made(name, "web-store", json!({ "podAntiAffinity": rule("web-store"), "podAffinity": rule("store") }))
    };
    let mut state = snapshot(&["node-1", "node-2", "node-3"].map(|name| node(name, json!({}))), &[]);
    let none = "3 node(s) didn't match pod affinity rules";
    check(&server("web-0"), &state, Err(none));
    for pod in [cache("cache-1"), server("web-1"), cache("cache-2"), cache("cache-3"), server("web-2"), server("web-3")]
    {
        let chosen = crate::tests::schedule(&pod, &state, 0, &mut StdRng::seed_from_u64(1)).map(str::to_owned).unwrap();
        state.set_pod(pod, &chosen);
    }
    for node in state.nodes() {
        let mut kinds: Vec<&str> = node.pods.values().map(|pod| pod.key.name.split('-').next().unwrap()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["cache", "web"], "{}", node.name);
    }
    let full = "3 node(s) didn't match pod anti-affinity rules";
    check(&server("web-4"), &state, Err(full));
    check(&cache("cache-4"), &state, Err(full));
}

#[test]
fn ports_conflict_by_number_protocol_and_address() {
    let with = |name: &str, port: i32, protocol: &str, address: &str| {
        let port = json!({ "containerPort": port, "hostPort": port, "protocol": protocol, "hostIP": address });
        pod(name, json!({ "spec": { "containers": [{ "name": "c", "ports": [port] }] } }))
    };
    let state = |address: &str| snapshot(&[node("a", json!({}))], &[(with("x", 80, "TCP", address), "a")]);
    for (running, port, protocol, address, fits) in [
        ("127.0.0.1", 80, "TCP", "127.0.0.1", false),
        ("127.0.0.1", 81, "TCP", "127.0.0.1", true),
        ("127.0.0.1", 80, "UDP", "127.0.0.1", true),
        ("127.0.0.1", 80, "TCP", "127.0.0.2", true),
        ("127.0.0.1", 80, "TCP", "0.0.0.0", false),
        ("0.0.0.0", 80, "TCP", "127.0.0.1", false),
        ("", 80, "TCP", "127.0.0.1", false),
        ("", 80, "UDP", "", true),
    ] {
        let why = "1 node(s) didn't have free ports for the requested pod ports";
        check(&with("p", port, protocol, address), &state(running), if fits { Ok("a") } else { Err(why) });
    }
}

#[test]
fn a_pod_that_names_its_node_goes_there_or_nowhere() {
    let state = snapshot(&[node("a", json!({})), node("b", json!({}))], &[]);
    check(&pod("p", json!({ "spec": { "nodeName": "b" } })), &state, Ok("b"));
    let wrong = pod("p", json!({ "spec": { "nodeName": "z" } }));
    check(&wrong, &state, Err("2 node(s) didn't match the requested node name"));
}

#[test]
fn a_daemons_pod_is_held_against_its_own_node_only() {
    let bound_to = |name: &str| {
        let term = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
        pod(
            "p",
            json!({ "spec": { "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } } } }),
        )
    };
    let full = (asking(json!({ "cpu": "2" })), "b");
    let state = snapshot(&[node("a", json!({})), node("b", json!({})), node("c", json!({}))], &[full]);
    check(&bound_to("a"), &state, Ok("a"));
    check(&bound_to("b"), &state, Err("1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]"));
    check(&bound_to("z"), &state, Err("3 node(s) didn't satisfy plugin(s) [NodeAffinity]"));
}

#[test]
fn affinity_that_a_profile_adds_holds_for_all_pods() {
    let mut profile = Profile::named("p");
    let term = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["z1"] }] });
    let affinity = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } });
    profile.added_affinity = Some(crate::rules::NodeRules::new(&serde_json::from_value(affinity).unwrap()));
    let state = snapshot(&[zoned("a", "z1"), zoned("b", "z2")], &[]);
    check_by(profile.clone(), &pod("p", json!({})), &state, Ok("a"));
    let state = snapshot(&[zoned("b", "z2")], &[]);
    let text = "1 node(s) didn't match scheduler-enforced node affinity";
    check_by(profile, &pod("p", json!({})), &state, Err(text));
}

#[test]
fn operators_of_node_affinity() {
    let node = node("a", json!({ "metadata": { "labels": { "n": "5", "s": "x" } } }));
    for (key, operator, values, fits) in [
        ("s", "In", json!(["w", "x"]), true),
        ("s", "NotIn", json!(["x"]), false),
        ("absent", "NotIn", json!(["x"]), true),
        ("s", "Exists", json!([]), true),
        ("absent", "Exists", json!([]), false),
        ("absent", "DoesNotExist", json!([]), true),
        ("n", "Gt", json!(["4"]), true),
        ("n", "Gt", json!(["5"]), false),
        ("n", "Lt", json!(["6"]), true),
        ("s", "Lt", json!(["6"]), false),
        ("s", "Unheard", json!(["x"]), false),
    ] {
        let term = json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        let choosy = pod(
            "p",
            json!({ "spec": { "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } } } }),
        );
        let state = snapshot(&[Arc::clone(&node)], &[]);
        let why = "1 node(s) didn't match Pod's node affinity/selector";
        check(&choosy, &state, if fits { Ok("a") } else { Err(why) });
    }
}

#[test]
fn plugins_that_are_off_refuse_nobody() {
    let mut profile = Profile::named("p");
    profile.filters = crate::Plugins::default();
    let nodes = [node("a", json!({ "spec": { "unschedulable": true } }))];
    check_by(profile, &asking(json!({ "cpu": "99" })), &snapshot(&nodes, &[]), Ok("a"));
}

#[test]
fn equals_are_chosen_by_chance_and_all_of_them_at_times() {
    let nodes: Vec<_> = ["a", "b", "c"].into_iter().map(|name| node(name, json!({}))).collect();
    let state = snapshot(&nodes, &[]);
    let choose =
        |seed| crate::tests::schedule(&pod("p", json!({})), &state, 0, &mut StdRng::seed_from_u64(seed)).unwrap();
    assert_eq!(choose(7), choose(7), "the same seed makes the same choice");
    let chosen: BTreeSet<&str> = (0..50).map(choose).collect();
    assert_eq!(chosen.len(), 3);
}

#[test]
fn large_clusters_are_looked_at_in_turns() {
    let nodes: Vec<_> = (0..1000).map(|i| node(&format!("n{i}"), json!({}))).collect();
    let state = snapshot(&nodes, &[]);
    let look = |start, percentage| {
        let mut profile = Profile::named("p");
        profile.percentage = percentage;
        let mut random = StdRng::seed_from_u64(1);
        let choice = crate::schedule(&pod("p", json!({})), &Arc::new(profile), &state, start, &mut random).unwrap();
        (choice.looked_at, choice.node[1..].parse::<usize>().unwrap())
    };
    // 50 - 1000/125 = 42 percent; a twentieth, but never fewer than 100; all.
    assert_eq!(look(0, 0).0, 420);
    assert_eq!(look(0, 5).0, 100);
    assert_eq!(look(0, 100).0, 1000);
    let (_, chosen) = look(950, 10);
    assert!(!(50..950).contains(&chosen), "{chosen} is among the hundred from 950 on, around the end");
}

/// What is kept between pods of a kind must be what counting anew would find.
#[test]
fn kept_counts_are_those_of_counting_anew() {
    let term = json!({ "topologyKey": "zone", "labelSelector": { "matchLabels": { "app": "web" } } });
    let anti = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } }] },
        "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 3, "podAffinityTerm": term }] } });
    let constraint = json!([{ "maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "web" } } }]);
    let replica = |i: usize| {
        pod(&format!("p{i}"), json!({ "spec": { "affinity": anti, "topologySpreadConstraints": constraint } }))
    };
    let nodes: Vec<_> = (0..12).map(|i| zoned(&format!("n{i}"), &format!("z{}", i % 3))).collect();
    let mut kept = snapshot(&nodes, &[]);
    let mut running: Vec<(Arc<PodInfo>, String)> = Vec::new();
    for i in 0..20 {
        let anew: Vec<_> = running.iter().map(|(p, n)| (Arc::clone(p), n.as_str())).collect();
        let anew = snapshot(&nodes, &anew);
        let choose = |state: &Snapshot| {
            let choice = crate::schedule(&replica(i), &default_profile(), state, i, &mut StdRng::seed_from_u64(9));
            choice.map(|choice| choice.node.to_owned())
        };
        let chosen = choose(&kept);
        assert_eq!(chosen, choose(&anew), "after {i} pods");
        if let Ok(name) = chosen {
            kept.set_pod(replica(i), &name);
            running.push((replica(i), name));
        }
        if i % 4 == 3 && !running.is_empty() {
            kept.remove_pod(&running.remove(i % running.len()).0.key);
        }
    }
    assert!(running.len() > 6);
}
