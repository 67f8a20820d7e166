//! Tables of scores, plugin by plugin, with their rounding; the worked examples of upstream's documentation.

use crate::filter::Prepared;
use crate::profile::{DefaultConstraint, Profile, SCORERS, Scorer, Strategy};
use crate::score::scores;
use crate::tests::{merge, node, pod, replica_set, snapshot};
use crate::{PodInfo, Snapshot};
use pintle_types::k8s::api::core::v1::Service;
use pintle_types::{Kind, ObjectKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::sync::Arc;

/// A profile by which only one plugin scores, with weight 1.
fn only(scorer: Scorer) -> Profile {
    let mut profile = Profile::named("only");
    profile.weights = [0; SCORERS];
    profile.weights[scorer as usize] = 1;
    profile
}

/// The scores of all nodes, in their order.
#[track_caller]
fn check(profile: Profile, pod: &PodInfo, state: &Snapshot, expected: &[i64]) {
    let prepared = Prepared::new(pod, &Arc::new(profile), state).unwrap();
    let nodes: Vec<_> = state.nodes().iter().collect();
    assert_eq!(scores(pod, &nodes, &prepared, state), expected);
}

fn asking(name: &str, requests: Value) -> Arc<PodInfo> {
    pod(name, json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": requests } }] } }))
}

fn room(name: &str, allocatable: Value) -> Arc<pintle_types::k8s::api::core::v1::Node> {
    let mut base = json!({ "cpu": "10", "memory": "10Gi" });
    merge(&mut base, allocatable);
    node(name, json!({ "status": { "allocatable": base } }))
}

#[test]
fn least_allocated_is_the_mean_of_free_shares_rounded_down() {
    let state = snapshot(
        &[room("a", json!({})), room("b", json!({ "cpu": "3" })), room("c", json!({ "cpu": "1" }))],
        &[(asking("x", json!({ "cpu": "3", "memory": "1Gi" })), "a")],
    );
    // a: (10-5)/10 = 50, (10-3)/10 = 70; b: (3-2)/3 = 33, (10-2)/10 = 80, 113/2 = 56; c has too little: 0, 80.
    let two = asking("p", json!({ "cpu": "2", "memory": "2Gi" }));
    check(only(Scorer::NodeResourcesFit), &two, &state, &[60, 56, 40]);
}

#[test]
fn containers_that_ask_for_nothing_count_for_a_little() {
    // 100m of 1000m, 200 MiB of 1000 MiB: 90 and 80.
    let small = node("a", json!({ "status": { "allocatable": { "cpu": "1", "memory": "1000Mi" } } }));
    let nothing = pod("p", json!({ "spec": { "containers": [{ "name": "c" }] } }));
    check(only(Scorer::NodeResourcesFit), &nothing, &snapshot(&[small], &[]), &[85]);
}

#[test]
fn most_allocated_is_the_mean_of_taken_shares() {
    let mut profile = only(Scorer::NodeResourcesFit);
    profile.strategy = Strategy::MostAllocated;
    profile.resources = vec![("cpu".into(), 3), ("memory".into(), 1)];
    let state = snapshot(&[room("a", json!({})), room("b", json!({ "cpu": "4" }))], &[]);
    // a: (20*3 + 50)/4 = 27.5; b: (50*3 + 50)/4.
    check(profile, &asking("p", json!({ "cpu": "2", "memory": "5Gi" })), &state, &[27, 50]);
}

// "Resource Bin Packing": requests intel.com/foo 2, memory 256MB, cpu 2; weights 5, 1, 3; shape 0:0, 100:10.
#[test]
fn the_bin_packing_example_of_the_documentation() {
    let mut profile = only(Scorer::NodeResourcesFit);
    profile.strategy = Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]);
    profile.resources = vec![("intel.com/foo".into(), 5), ("memory".into(), 1), ("cpu".into(), 3)];
    let asked = |name, foo: &str, cpu: &str, memory: &str| {
        asking(name, json!({ "intel.com/foo": foo, "cpu": cpu, "memory": memory }))
    };
    let node = |name, foo: &str| room(name, json!({ "intel.com/foo": foo, "memory": "1Gi", "cpu": "8" }));
    let state = snapshot(
        &[node("one", "4"), node("two", "8")],
        &[(asked("x", "1", "1", "256Mi"), "one"), (asked("y", "2", "6", "512Mi"), "two")],
    );
    // The documentation counts of 10 and cuts at every step: (7*5 + 5*1 + 3*3) / 9 = 5 and (5*5 + 7*1 + 10*3) / 9 = 7.
    // Of 100, and rounded at the end: (75*5 + 50*1 + 37*3) / 9 = 59.6 and (50*5 + 75*1 + 100*3) / 9 = 69.4.
    check(profile, &asked("p", "2", "2", "256Mi"), &state, &[60, 69]);
}

#[test]
fn a_ratio_follows_its_shape_and_leaves_out_what_scores_nothing() {
    let mut profile = only(Scorer::NodeResourcesFit);
    profile.strategy = Strategy::RequestedToCapacityRatio(vec![(20, 0), (50, 100), (100, 40)]);
    let at = |cpu: &str, memory: &str| asking("p", json!({ "cpu": cpu, "memory": memory }));
    let state = snapshot(&[room("a", json!({ "memory": "10" }))], &[]);
    for (cpu, memory, expected) in
        // Before the first point, on a slope, on the way down, and a mean that is rounded to the nearest.
        [("1", "5", 100), ("3", "3", 33), ("7500m", "10", 55), ("10", "10", 40), ("2", "2", 0)]
    {
        check(profile.clone(), &at(cpu, memory), &state, &[expected]);
    }
}

#[test]
fn balance_is_one_less_the_deviation_of_shares() {
    let state = snapshot(&[room("a", json!({})), room("b", json!({ "cpu": "4" }))], &[]);
    let wanting = asking("p", json!({ "cpu": "2", "memory": "5Gi" }));
    // a: |0.2 - 0.5| / 2 = 0.15; b: both half.
    check(only(Scorer::NodeResourcesBalancedAllocation), &wanting, &state, &[85, 100]);
    let besteffort = pod(
        "p",
        json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": {
        "cpu": "0", "memory": "0" } } }] } }),
    );
    check(only(Scorer::NodeResourcesBalancedAllocation), &besteffort, &state, &[0, 0]);
    let mut three = only(Scorer::NodeResourcesBalancedAllocation);
    three.balanced.push("example.com/gpu".into());
    let state = snapshot(&[room("a", json!({ "example.com/gpu": "10" }))], &[]);
    let wanting = asking("p", json!({ "cpu": "1", "memory": "1Gi", "example.com/gpu": "4" }));
    // Shares 0.1, 0.1, 0.4: the root of ((0.1)² + (0.1)² + (0.2)²) / 3 = 0.1414.
    check(three, &wanting, &state, &[85]);
}

#[test]
fn taints_that_would_rather_keep_away_are_counted_and_turned_round() {
    let tainted = |name, count: usize| {
        let taints: Vec<Value> =
            (0..count).map(|i| json!({ "key": format!("k{i}"), "effect": "PreferNoSchedule" })).collect();
        node(name, json!({ "spec": { "taints": taints } }))
    };
    let state = snapshot(&[tainted("a", 0), tainted("b", 1), tainted("c", 3)], &[]);
    check(only(Scorer::TaintToleration), &pod("p", json!({})), &state, &[100, 67, 0]);
    let tolerant = json!({ "spec": { "tolerations": [{ "key": "k1", "operator": "Exists" }] } });
    check(only(Scorer::TaintToleration), &pod("p", tolerant), &state, &[100, 50, 0]);
}

#[test]
fn preferred_nodes_are_weighed_against_the_most_preferred() {
    let labelled = |name, labels: Value| node(name, json!({ "metadata": { "labels": labels } }));
    let nodes = [
        labelled("a", json!({ "disk": "ssd", "zone": "x" })),
        labelled("b", json!({ "disk": "ssd" })),
        labelled("c", json!({})),
    ];
    let term = |key: &str, value: &str, weight: i32| {
        json!({ "weight": weight,
            "preference": { "matchExpressions": [{ "key": key, "operator": "In", "values": [value] }] } })
    };
    let preferring = json!({ "spec": { "affinity": { "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [term("disk", "ssd", 4), term("zone", "x", 2)] } } } });
    // 6, 4 and 0 of 6.
    check(only(Scorer::NodeAffinity), &pod("p", preferring), &snapshot(&nodes, &[]), &[100, 66, 0]);
}

// "Node affinity weight": of two nodes one has label-1, which is worth 1, the other label-2, which is worth 50.
#[test]
fn the_weights_of_the_documentation() {
    let labelled = |name, key: &str, value: &str| node(name, json!({ "metadata": { "labels": { key: value } } }));
    let nodes = [labelled("one", "label-1", "key-1"), labelled("two", "label-2", "key-2")];
    let term = |key: &str, value: &str, weight: i32| {
        json!({ "weight": weight,
            "preference": { "matchExpressions": [{ "key": key, "operator": "In", "values": [value] }] } })
    };
    let preferring = json!({ "spec": { "affinity": { "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [term("label-1", "key-1", 1), term("label-2", "key-2", 50)]
    } } } });
    check(only(Scorer::NodeAffinity), &pod("p", preferring), &snapshot(&nodes, &[]), &[2, 100]);
}

#[test]
fn company_is_placed_between_the_least_and_the_most_liked() {
    let term = |weight: i32| {
        json!([{ "weight": weight, "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname",
            "labelSelector": { "matchLabels": { "app": "web" } } } }])
    };
    let kind = "preferredDuringSchedulingIgnoredDuringExecution";
    let liking = pod("p", json!({ "spec": { "affinity": { "podAffinity": { kind: term(5) } } } }));
    let shy = pod("p", json!({ "spec": { "affinity": { "podAntiAffinity": { kind: term(5) } } } }));
    let web = |name| pod(name, json!({}));
    let nodes = ["a", "b", "c"].map(|name| node(name, json!({})));
    let state = snapshot(&nodes, &[(web("x"), "a"), (web("y"), "a"), (web("z"), "a"), (web("w"), "b")]);
    check(only(Scorer::InterPodAffinity), &liking, &state, &[100, 33, 0]);
    check(only(Scorer::InterPodAffinity), &shy, &state, &[0, 66, 100]);
}

#[test]
fn the_wishes_of_running_pods_count_too() {
    let term = json!({ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } });
    let rule = |kind: &str, term: Value| json!({ "spec": { "affinity": { "podAffinity": { kind: [term] } } } });
    let required = pod("x", rule("requiredDuringSchedulingIgnoredDuringExecution", term.clone()));
    let preferred =
        rule("preferredDuringSchedulingIgnoredDuringExecution", json!({ "weight": 4, "podAffinityTerm": term }));
    let nodes = ["a", "b", "c"].map(|name| node(name, json!({})));
    let state = snapshot(&nodes, &[(required, "a"), (pod("y", preferred), "b")]);
    let plain = pod("p", json!({}));
    check(only(Scorer::InterPodAffinity), &plain, &state, &[25, 100, 0]);
    let mut heavier = only(Scorer::InterPodAffinity);
    heavier.required_affinity_weight = 8;
    check(heavier, &plain, &state, &[100, 50, 0]);
    let mut deaf = only(Scorer::InterPodAffinity);
    deaf.ignores_preferences_of_others = true;
    check(deaf, &plain, &state, &[0, 0, 0]);
}

fn zoned(name: &str, zone: &str) -> Arc<pintle_types::k8s::api::core::v1::Node> {
    node(name, json!({ "metadata": { "labels": { "zone": zone } } }))
}

fn spreading(name: &str, when: &str, more: Value) -> Arc<PodInfo> {
    let mut constraint = json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when,
        "labelSelector": { "matchLabels": { "app": "web" } } });
    merge(&mut constraint, more);
    pod(name, json!({ "spec": { "topologySpreadConstraints": [constraint] } }))
}

#[test]
fn soft_spread_weighs_by_the_number_of_domains() {
    let nodes = [zoned("a", "z1"), zoned("b", "z1"), zoned("c", "z2"), node("d", json!({}))];
    let web = |name| pod(name, json!({}));
    let state =
        snapshot(&nodes, &[(web("x"), "a"), (web("y"), "b"), (web("w"), "b"), (web("z"), "c"), (web("v"), "d")]);
    // Two domains weigh ln 4: 3 pods are 4.16, 1 is 1.39; rounded 4 and 1. 100 * (4+1-4)/4 and 100 * (4+1-1)/4; a
    // node without the label gets nothing.
    check(only(Scorer::PodTopologySpread), &spreading("p", "ScheduleAnyway", json!({})), &state, &[25, 25, 100, 0]);
}

#[test]
fn defaults_of_the_profile_spread_pods_of_a_set() {
    let owner =
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true }]);
    let owned = |name| pod(name, json!({ "metadata": { "ownerReferences": owner } }));
    let mut state = snapshot(&[zoned("a", "z1"), zoned("b", "z2")], &[(owned("x"), "a"), (owned("y"), "a")]);
    state.set_owner(replica_set("web"), true);
    let mut profile = only(Scorer::PodTopologySpread);
    let constraint = |hard| DefaultConstraint {
        key: "zone".into(),
        max_skew: 1,
        min_domains: 1,
        hard,
        honor_affinity: true,
        honor_taints: false,
    };
    profile.spread = Some(vec![constraint(false)]);
    // 2 * ln 4 = 2.77, rounded 3; the other none.
    check(profile.clone(), &owned("p"), &state, &[0, 100]);
    profile.spread = Some(Vec::new());
    check(profile.clone(), &owned("p"), &state, &[0, 0]);
    profile.spread = Some(vec![constraint(true)]);
    let mut state = snapshot(&[zoned("a", "z1"), zoned("b", "z2")], &[(owned("x"), "a")]);
    state.set_owner(replica_set("web"), true);
    let mut random: StdRng = SeedableRng::seed_from_u64(1);
    let choice = crate::schedule(&owned("p"), &Arc::new(profile), &state, 0, &mut random);
    assert_eq!(choice.map(|choice| choice.node), Ok("b"));
}

#[test]
fn the_system_defaults_spread_the_pods_of_a_service_over_hosts_and_zones() {
    let at = |name, zone| {
        let labels = json!({ "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone });
        node(name, json!({ "metadata": { "labels": labels } }))
    };
    let web = |name| pod(name, json!({}));
    let nodes = [at("a", "z1"), at("b", "z1"), at("c", "z2"), node("d", json!({}))];
    let mut state = snapshot(&nodes, &[(web("x"), "a"), (web("y"), "a"), (web("z"), "b"), (web("v"), "c")]);
    let profile = || only(Scorer::PodTopologySpread);
    check(profile(), &web("p"), &state, &[0, 0, 0, 0]);
    let metadata = json!({ "namespace": "default", "name": "web" });
    let service = json!({ "metadata": metadata, "spec": { "selector": { "app": "web" } } });
    let service = Arc::new(Service::from_value(service).unwrap());
    state.set_service(&ObjectKey::new("default", "web"), Some(service));
    // Hosts weigh ln 6 = 1.79 and allow 2, two zones ln 4 = 1.39 and allow 4; d, without a zone, counts as a host only.
    // a: 2*1.79+2 + 3*1.39+4 = 13.74; b: 11.95; c: 1.79+2 + 1.39+4 = 9.18; d: 2. Rounded 14, 12, 9, 2; of 14 + 2.
    check(profile(), &web("p"), &state, &[14, 28, 50, 100]);
    // A service of another namespace, or for others, says nothing.
    check(profile(), &pod("p", json!({ "metadata": { "labels": { "app": "db" } } })), &state, &[0, 0, 0, 0]);
    state.set_service(&ObjectKey::new("default", "web"), None);
    check(profile(), &web("p"), &state, &[0, 0, 0, 0]);
}

#[test]
fn images_count_by_size_and_by_how_far_they_are_spread() {
    let with = |name, images: &[(&str, i64)]| {
        let images: Vec<Value> = images.iter().map(|(n, size)| json!({ "names": [n], "sizeBytes": size })).collect();
        node(name, json!({ "status": { "images": images } }))
    };
    const MIB: i64 = 1024 * 1024;
    let wanting = pod("p", json!({ "spec": { "containers": [{ "name": "c", "image": "web" }] } }));
    let name = "docker.io/library/web:latest";
    let nodes = [with("a", &[(name, 1046 * MIB)]), with("b", &[("other:1", 900 * MIB)])];
    // Half of the nodes have it: 523 MiB of between 23 and 1000: 51.2.
    check(only(Scorer::ImageLocality), &wanting, &snapshot(&nodes, &[]), &[51, 0]);
    let both = [with("a", &[(name, 20 * MIB)]), with("b", &[(name, 4000 * MIB)])];
    check(only(Scorer::ImageLocality), &wanting, &snapshot(&both, &[]), &[0, 100]);
}
