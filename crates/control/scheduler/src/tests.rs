//! Tables of pods and nodes, and the choices and refusals that must follow.

use crate::filter::Plugin;
use crate::hints::Event;
use crate::queue::PodQueue;
use crate::snapshot::NodeInfo;
use crate::{Misfit, Owner, Plugins, PodInfo, Snapshot, default_profile};
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::{ReplicaSet, StatefulSet};
use pintle_types::k8s::api::core::v1::{Node, Pod};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            more.into_iter().for_each(|(k, v)| merge(base.entry(k).or_insert(Value::Null), v))
        }
        (base, more) => *base = more,
    }
}

pub(crate) fn node(name: &str, more: Value) -> Arc<Node> {
    let mut value = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "110" } },
    });
    merge(&mut value, more);
    Arc::new(Node::from_value(value).unwrap())
}

pub(crate) fn pod(name: &str, more: Value) -> Arc<PodInfo> {
    let mut value = json!({
        "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m", "memory": "1Gi" } } }] },
    });
    merge(&mut value, more);
    Arc::new(PodInfo::new(Arc::new(Pod::from_value(value).unwrap())))
}

pub(crate) fn snapshot(nodes: &[Arc<Node>], pods: &[(Arc<PodInfo>, &str)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|n| snapshot.set_node(Arc::clone(n)));
    for (pod, node) in pods {
        snapshot.set_pod(Arc::clone(pod), node);
    }
    snapshot
}

/// One that makes the pods of [`pod`].
pub(crate) fn replica_set(name: &str) -> Owner {
    let metadata = json!({ "namespace": "default", "name": name });
    let spec = json!({ "selector": { "matchLabels": { "app": "web" } } });
    Owner::ReplicaSet(Arc::new(ReplicaSet::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()))
}

/// By upstream's defaults.
pub(crate) fn schedule<'a>(
    pod: &PodInfo,
    snapshot: &'a Snapshot,
    start: usize,
    random: &mut StdRng,
) -> Result<&'a str, Misfit> {
    crate::schedule(pod, &default_profile(), snapshot, start, random).map(|choice| choice.node)
}

#[track_caller]
fn check(pod: &PodInfo, snapshot: &Snapshot, expected: Result<&str, &str>) {
    let result = schedule(pod, snapshot, 0, &mut StdRng::seed_from_u64(1)).map_err(|m| m.to_string());
    assert_eq!(result.as_ref().map(|n| *n).map_err(String::as_str), expected);
}

#[test]
fn refusals_are_counted_by_reason() {
    let big = json!({ "spec": { "containers": [{ "resources": { "requests": { "cpu": "3", "memory": "8Gi" } } }] } });
    check(&pod("p", json!({})), &snapshot(&[], &[]), Err("no nodes available to schedule pods"));
    let tainted = json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
    let nodes = [node("a", json!({})), node("b", json!({})), node("c", tainted)];
    check(
        &pod("p", big),
        &snapshot(&nodes, &[]),
        Err("0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu, 2 Insufficient memory."),
    );
    let elsewhere = pod("p", json!({ "spec": { "nodeSelector": { "disk": "ssd" } } }));
    check(
        &elsewhere,
        &snapshot(&nodes[..1], &[]),
        Err("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
    );
    let cordoned = node("d", json!({ "spec": { "unschedulable": true } }));
    check(
        &pod("p", json!({})),
        &snapshot(&[cordoned], &[]),
        Err("0/1 nodes are available: 1 node(s) were unschedulable."),
    );
}

#[test]
fn the_emptier_node_is_chosen_and_full_ones_are_refused() {
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let half = |name| pod(name, json!({ "spec": { "containers": [{ "resources": { "requests": { "cpu": "1" } } }] } }));
    check(&half("p"), &snapshot(&nodes, &[(half("x"), "a")]), Ok("b"));
    let taken = [(half("x"), "a"), (half("y"), "a"), (half("z"), "b")];
    check(&half("p"), &snapshot(&nodes, &taken), Ok("b"));
    let full = [(half("x"), "a"), (half("y"), "a"), (half("z"), "b"), (half("w"), "b")];
    check(&half("p"), &snapshot(&nodes, &full), Err("0/2 nodes are available: 2 Insufficient cpu."));
}

#[test]
fn initialization_counts_when_it_needs_more() {
    let init = json!({ "spec": { "initContainers": [
        { "name": "side", "restartPolicy": "Always", "resources": { "requests": { "cpu": "200m" } } },
        { "name": "i", "resources": { "requests": { "cpu": "1" } } },
    ] } });
    assert_eq!(pod("p", init).requests.milli_cpu, 1200);
    let small = json!({ "spec": { "initContainers": [
        { "name": "side", "restartPolicy": "Always", "resources": { "requests": { "cpu": "200m" } } },
    ], "overhead": { "cpu": "50m" } } });
    assert_eq!(pod("p", small).requests.milli_cpu, 750);
}

#[test]
fn tolerations_are_matched_by_key_effect_and_operator() {
    let tainted =
        |effect: &str| node("a", json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": effect }] } }));
    let tolerating = |t: Value| pod("p", json!({ "spec": { "tolerations": [t] } }));
    for (toleration, effect, fits) in [
        (json!({ "operator": "Exists" }), "NoSchedule", true),
        (json!({ "key": "k", "operator": "Exists" }), "NoExecute", true),
        (json!({ "key": "k", "value": "v" }), "NoSchedule", true),
        (json!({ "key": "k", "value": "other" }), "NoSchedule", false),
        (json!({ "key": "k", "operator": "Exists", "effect": "NoExecute" }), "NoSchedule", false),
        (json!({ "key": "other", "operator": "Exists" }), "PreferNoSchedule", true),
    ] {
        let result = schedule(
            &tolerating(toleration.clone()),
            &snapshot(&[tainted(effect)], &[]),
            0,
            &mut StdRng::seed_from_u64(1),
        )
        .is_ok();
        assert_eq!(result, fits, "{toleration} {effect}");
    }
}

#[test]
fn replicas_are_spread_over_hosts() {
    let owned = |name| {
        let owner =
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true }]);
        pod(name, json!({ "metadata": { "ownerReferences": owner } }))
    };
    let nodes =
        [node("a", json!({ "status": { "allocatable": { "cpu": "64", "memory": "256Gi" } } })), node("b", json!({}))];
    let mut state = snapshot(&nodes, &[(owned("x"), "a"), (owned("y"), "a")]);
    check(&owned("p"), &state, Ok("a"));
    state.set_owner(replica_set("web"), true);
    check(&owned("p"), &state, Ok("b"));
    state.set_owner(replica_set("web"), false);
    check(&owned("p"), &state, Ok("a"));
}

#[test]
fn a_hard_spread_refuses_the_crowded() {
    let spread = json!({ "spec": { "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } }] } });
    let tiny = node("b", json!({ "status": { "allocatable": { "cpu": "100m" } } }));
    let state = snapshot(&[node("a", json!({})), tiny], &[(pod("x", json!({})), "a")]);
    check(
        &pod("p", spread),
        &state,
        Err("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints."),
    );
}

#[test]
fn pods_attract_and_repel_each_other() {
    let term = json!({ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } });
    let rule = |kind: &str| json!({ "spec": { "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } } });
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let state = snapshot(&nodes, &[(pod("x", json!({})), "a")]);
    check(&pod("p", rule("podAffinity")), &state, Ok("a"));
    check(&pod("p", rule("podAntiAffinity")), &state, Ok("b"));
    let alone = snapshot(&nodes[..1], &[(pod("x", rule("podAntiAffinity")), "a")]);
    check(
        &pod("p", json!({})),
        &alone,
        Err("0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."),
    );
    // The first of a group that wants its own company may start anywhere.
    check(&pod("p", rule("podAffinity")), &snapshot(&nodes[..1], &[]), Ok("a"));
}

#[test]
fn host_ports_are_exclusive() {
    let with_port =
        |name| pod(name, json!({ "spec": { "containers": [{ "ports": [{ "containerPort": 80, "hostPort": 80 }] }] } }));
    let state = snapshot(&[node("a", json!({}))], &[(with_port("x"), "a")]);
    check(
        &with_port("p"),
        &state,
        Err("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."),
    );
}

#[test]
fn pods_of_a_removed_node_do_not_make_it_a_choice() {
    let mut state = snapshot(&[node("a", json!({})), node("b", json!({}))], &[(pod("x", json!({})), "a")]);
    state.remove_node("a");
    check(&pod("p", json!({})), &state, Ok("b"));
    state.remove_pod(&pod("x", json!({})).key);
    assert_eq!(state.nodes().len(), 1);
    assert!(state.node("a").is_none() && state.node("b").is_some());
}

fn queue() -> PodQueue {
    let metrics = crate::Metrics::new(&pintle_metrics::Registry::default());
    PodQueue::new([Duration::from_secs(1), Duration::from_secs(10)], metrics)
}

#[tokio::test(start_paused = true)]
async fn the_queue_goes_by_priority_then_age_and_backs_off() {
    let queue = queue();
    queue.add(pod("old", json!({})));
    queue.add(pod("young", json!({})));
    queue.add(pod("urgent", json!({ "spec": { "priority": 10 } })));
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(queue.pop().await.pod.key.name.clone());
    }
    assert_eq!(order, ["urgent", "old", "young"]);
    let key = pod("old", json!({})).key.clone();
    let mut refused = Plugins::default();
    refused.insert(Plugin::NodeResourcesFit);
    queue.unschedulable(&key, refused);
    assert!(matches!(queue.try_pop(), Err(Some(_))), "it waits for a change, or for five minutes");
    queue.cluster_changed(&Event::NodeGone);
    assert!(matches!(queue.try_pop(), Err(Some(_))), "that cannot help");
    let added = Event::NodeAdded(Box::new(NodeInfo::alone(&node("n", json!({})))));
    queue.cluster_changed(&added);
    let start = tokio::time::Instant::now();
    assert_eq!(queue.pop().await.pod.key, key);
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody else waits: its back-off is cut short");
    queue.cluster_changed(&added);
    queue.unschedulable(&key, refused);
    assert_eq!(queue.pop().await.attempts, 3, "a change during the attempt is not lost");
    queue.cluster_changed(&Event::NodeGone);
    queue.unschedulable(&key, refused);
    assert!(matches!(queue.try_pop(), Err(Some(_))), "what changed during the attempt cannot help");
    queue.cluster_changed(&added);
    assert_eq!(queue.pop().await.attempts, 4);
    queue.retry(&key);
    assert_eq!(queue.pop().await.attempts, 5);
    assert_eq!(start.elapsed(), Duration::from_secs(8), "after an error the back-off holds, doubled three times");
    queue.remove(&key);
    queue.retry(&key);
    assert!(matches!(queue.try_pop(), Err(None)), "a pod that is gone does not come back");
}

#[tokio::test(start_paused = true)]
async fn backing_off_gives_way_to_pods_that_do_not() {
    let queue = queue();
    queue.add(pod("refused", json!({ "spec": { "priority": 10 } })));
    let refused = queue.pop().await.pod;
    queue.cluster_changed(&Event::PodGone(pod("x", json!({})), None));
    let mut by = Plugins::default();
    by.insert(Plugin::NodeResourcesFit);
    queue.unschedulable(&refused.key, by);
    assert_eq!(queue.lengths(), [0, 1, 0]);
    queue.add(pod("new", json!({})));
    assert_eq!(queue.pop().await.pod.key.name, "new");
    assert_eq!(queue.pop().await.pod.key.name, "refused");
}

#[test]
fn nodes_are_looked_at_zone_by_zone() {
    let of = |name: &str, zone: &str| {
        node(name, json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } }))
    };
    let mut world =
        snapshot(&[of("a", "1"), of("b", "1"), of("c", "1"), of("d", "2"), of("e", "3"), of("f", "2")], &[]);
    let order = |world: &Snapshot| {
        world.order().iter().map(|place| world.nodes()[*place].name.clone()).collect::<Vec<_>>().join("")
    };
    assert_eq!(order(&world), "adebfc");
    world.set_node(of("e", "1"));
    assert_eq!(order(&world), "adbfce");
    world.remove_node("a");
    assert_eq!(world.order().len(), 5);
}

#[test]
fn pods_of_a_stateful_set_are_counted_once() {
    let owned = |name: &str| {
        let owner =
            json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true }]);
        let labels = json!({ "app": "db", "statefulset.kubernetes.io/pod-name": name });
        pod(name, json!({ "metadata": { "ownerReferences": owner, "labels": labels } }))
    };
    let profile = default_profile();
    let mut world = snapshot(&[node("a", json!({}))], &[(owned("db-0"), "a")]);
    let metadata = json!({ "namespace": "default", "name": "db" });
    let spec = json!({ "selector": { "matchLabels": { "app": "db" } }, "serviceName": "", "template": {} });
    let set = StatefulSet::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    world.set_owner(Owner::StatefulSet(Arc::new(set)), true);
    let same = |world: &Snapshot| {
        let [first, second] = ["db-1", "db-2"].map(|name| world.counts(&owned(name), &profile).unwrap());
        Arc::ptr_eq(&first, &second)
    };
    assert!(same(&world));
    // Unless somebody asks for the one by its name.
    let term = json!({ "labelSelector": { "matchLabels": { "statefulset.kubernetes.io/pod-name": "db-1" } }, "topologyKey": "kubernetes.io/hostname" });
    let affinity = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
    world.set_pod(pod("shy", json!({ "spec": { "affinity": affinity } })), "a");
    assert!(!same(&world));
    world.remove_pod(&pod("shy", json!({})).key);
    assert!(same(&world));
}

#[test]
fn a_pod_that_goes_helps_those_who_fit_where_it_was() {
    use crate::room::Room;
    let sized = |name: &str, cpu: &str, priority: i32| {
        let container = json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } });
        pod(name, json!({ "spec": { "containers": [container], "priority": priority } }))
    };
    let mut world = snapshot(&[node("a", json!({}))], &[(sized("low", "1", 0), "a")]);
    let may = |world: &Snapshot, pod: &PodInfo| Room::of(world.node("a").unwrap(), world).may_take(pod);
    // One of two cores is free; the other is of a pod of priority 0.
    for (cpu, priority, expected) in [("1", 0, true), ("2", 0, false), ("2", 1, true), ("3", 1, false)] {
        assert_eq!(may(&world, &sized("p", cpu, priority)), expected, "{cpu} at {priority}");
    }
    let never = pod(
        "p",
        json!({ "spec": { "priority": 1, "preemptionPolicy": "Never", "containers": [{ "resources": { "requests": { "cpu": "2" } } }] } }),
    );
    assert!(!may(&world, &never));
    // What is promised to others is not to be had; who waits for pods to leave needs what is really free.
    let waiting = sized("w", "2", 1);
    world.nominate(Arc::clone(&waiting), "a");
    world.await_leaving(&waiting.key, &[sized("low", "1", 0)]);
    assert!(!may(&world, &waiting));
    assert!(!may(&world, &sized("p", "1", 1)));
    world.remove_pod(&sized("low", "1", 0).key);
    assert!(may(&world, &waiting));
    assert!(!may(&world, &sized("p", "1", 1)));
    assert!(may(&world, &sized("p", "1", 2)));
}
