//! Tables of pods that need room, and who must leave for them; which change helps which refused pod.

use crate::filter::{Plugin, Plugins};
use crate::hints::{Event, helps};
use crate::snapshot::NodeInfo;
use crate::tests::{merge, node, pod, schedule, snapshot};
use crate::{PodInfo, Preemption, Snapshot, default_profile, preempt};
use pintle_types::Kind;
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::sync::Arc;

/// A pod that takes `cpu` of the two cores that a node of the tables has.
fn sized(name: &str, priority: i32, cpu: &str, more: Value) -> Arc<PodInfo> {
    let mut value = json!({ "spec": {
        "priority": priority,
        "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }],
    } });
    merge(&mut value, more);
    pod(name, value)
}

fn budget(allowed: i32, labels: Value) -> Arc<PodDisruptionBudget> {
    let value = json!({
        "metadata": { "name": "b", "namespace": "default" },
        "spec": { "selector": { "matchLabels": labels } },
        "status": { "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 },
    });
    Arc::new(PodDisruptionBudget::from_value(value).unwrap())
}

/// What comes of it, as `node: victims`, or upstream's words.
#[track_caller]
fn check(pod: &PodInfo, state: &Snapshot, expected: &str) {
    let mut random = StdRng::seed_from_u64(1);
    let misfit = schedule(pod, state, 0, &mut random).expect_err("the pod should not fit as it is");
    let told = match preempt(pod, &default_profile(), state, &misfit, &mut random) {
        Preemption::NotEligible(why_not) => why_not.to_owned(),
        Preemption::NoNode(why_not) => why_not,
        Preemption::Room { node, victims } => {
            let names: Vec<&str> = victims.iter().map(|v| v.key.name.as_str()).collect();
            format!("{node}: {}", names.join(" "))
        }
    };
    assert_eq!(told, expected);
}

#[test]
fn as_few_and_as_unimportant_pods_as_will_do_leave() {
    let one = [node("a", json!({}))];
    let low = |name| (sized(name, 1, "500m", json!({})), "a");
    let important = (sized("important", 5, "1", json!({})), "a");
    let state = snapshot(&one, &[low("x"), low("y"), important]);
    check(&sized("p", 9, "1", json!({})), &state, "a: x y");
    check(&sized("p", 9, "500m", json!({})), &state, "a: y");
    check(&sized("p", 9, "2", json!({})), &state, "a: important x y");
}

#[test]
fn the_longest_running_of_equals_stays() {
    let since = |name, time: &str| (sized(name, 1, "1", json!({ "status": { "startTime": time } })), "a");
    let state = snapshot(
        &[node("a", json!({}))],
        &[since("old", "2026-01-01T00:00:00Z"), since("new", "2026-01-02T00:00:00Z")],
    );
    check(&sized("p", 9, "1", json!({})), &state, "a: new");
}

#[test]
fn nodes_are_compared_by_what_is_lost() {
    let two = [node("a", json!({})), node("b", json!({}))];
    let full = |name, priority| sized(name, priority, "2", json!({}));
    let urgent = sized("p", 9, "2", json!({}));
    // The lowest highest priority.
    check(&urgent, &snapshot(&two, &[(full("x", 3), "a"), (full("y", 2), "b")]), "b: y");
    // The lowest sum, in which each pod counts, however low its priority.
    let halves = [(sized("h1", 2, "1", json!({})), "a"), (sized("h2", 2, "1", json!({})), "a"), (full("y", 2), "b")];
    check(&urgent, &snapshot(&two, &halves), "b: y");
    // The latest start.
    let at = |name, time: &str| sized(name, 2, "2", json!({ "status": { "startTime": time } }));
    let started = [(at("old", "2026-01-01T00:00:00Z"), "a"), (at("new", "2026-01-02T00:00:00Z"), "b")];
    check(&urgent, &snapshot(&two, &started), "b: new");
}

// "Pod Priority and Preemption", limitations: whoever wants to be with the less important can't have them leave; and
// those of other nodes are never asked to.
#[test]
fn who_is_wanted_for_company_does_not_leave() {
    let one = [node("a", json!({}))];
    let db = json!({ "metadata": { "labels": { "app": "db" } } });
    let term = json!({ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "db" } } });
    let wants = |kind: &str| json!({ "spec": { "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } } });
    let company = snapshot(&one, &[(sized("x", 1, "2", db.clone()), "a")]);
    let none = "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.";
    check(&sized("p", 9, "2", wants("podAffinity")), &company, none);
    check(&sized("p", 9, "1", wants("podAntiAffinity")), &company, "a: x");
}

#[test]
fn budgets_are_hurt_last() {
    let two = [node("a", json!({})), node("b", json!({}))];
    let guarded = sized("guarded", 1, "2", json!({ "metadata": { "labels": { "app": "db" } } }));
    let mut state = snapshot(&two, &[(guarded, "a"), (sized("free", 5, "2", json!({})), "b")]);
    let urgent = sized("p", 9, "2", json!({}));
    for (allowed, labels, expected) in [
        (0, json!({ "app": "db" }), "b: free"),
        (1, json!({ "app": "db" }), "a: guarded"),
        (0, json!({ "app": "db" }), "b: free"),
        // One that names nobody keeps nobody.
        (0, json!({}), "a: guarded"),
    ] {
        let budget = budget(allowed, labels);
        state.set_budget(&budget.key(), Some(budget));
        check(&urgent, &state, expected);
    }
}

#[test]
fn refusals_are_told_in_upstreams_words() {
    let nodes = [
        node("a", json!({})),
        node("b", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } })),
        node("c", json!({ "status": { "allocatable": { "cpu": "1" } } })),
    ];
    let state = snapshot(&nodes, &[(sized("x", 9, "2", json!({})), "a")]);
    check(
        &sized("p", 5, "2", json!({})),
        &state,
        "0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for \
         scheduling.",
    );
    let never = json!({ "spec": { "preemptionPolicy": "Never" } });
    check(&sized("p", 9, "2", never), &state, "not eligible due to preemptionPolicy=Never.");
}

#[test]
fn earlier_victims_are_waited_for() {
    let leaving = json!({
        "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" },
        "status": { "conditions": [{ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }] },
    });
    let state = snapshot(&[node("a", json!({}))], &[(sized("x", 1, "2", leaving), "a")]);
    let nominated = sized("p", 9, "2", json!({ "status": { "nominatedNodeName": "a" } }));
    check(&nominated, &state, "not eligible due to a terminating pod on the nominated node.");
}

#[test]
fn promised_room_is_kept_from_the_less_important() {
    let mut state = snapshot(&[node("a", json!({}))], &[]);
    state.nominate(sized("p", 5, "2", json!({})), "a");
    let place = |priority| schedule(&sized("q", priority, "1", json!({})), &state, 0, &mut StdRng::seed_from_u64(1));
    assert_eq!(place(4).map_err(|m| m.to_string()), Err("0/1 nodes are available: 1 Insufficient cpu.".to_owned()));
    assert_eq!(place(6), Ok("a"));
}

#[test]
fn only_what_could_help_brings_a_pod_back() {
    let of = |plugin| {
        let mut plugins = Plugins::default();
        plugins.insert(plugin);
        plugins
    };
    let alone = |more: Value| NodeInfo::alone(&node("a", more));
    let tainted = || alone(json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } }));
    let small = || alone(json!({ "status": { "allocatable": { "cpu": "1" } } }));
    let plain = || alone(json!({}));
    let other = || sized("x", 1, "1", json!({}));
    for (event, plugin, helped) in [
        (Event::NodeAdded(Box::new(plain())), Plugin::NodeResourcesFit, true),
        (Event::NodeAdded(Box::new(small())), Plugin::NodeResourcesFit, false),
        (Event::NodeChanged(Box::new([small(), plain()])), Plugin::NodeResourcesFit, true),
        (Event::NodeChanged(Box::new([tainted(), plain()])), Plugin::NodeResourcesFit, false),
        (Event::NodeChanged(Box::new([tainted(), plain()])), Plugin::TaintToleration, true),
        (Event::NodeChanged(Box::new([plain(), tainted()])), Plugin::TaintToleration, false),
        (Event::PodGone(other(), None), Plugin::NodeResourcesFit, true),
        (Event::PodGone(other(), None), Plugin::TaintToleration, false),
        (Event::PodGone(other(), None), Plugin::NodePorts, false),
        (Event::PodAdded, Plugin::InterPodAffinity, true),
        (Event::PodAdded, Plugin::NodeResourcesFit, false),
        (Event::NodeGone, Plugin::PodTopologySpread, true),
        (Event::NamespaceChanged, Plugin::NodeAffinity, false),
    ] {
        assert_eq!(helps(&event, of(plugin), &sized("p", 1, "2", json!({}))), helped, "{plugin:?}");
    }
}

#[test]
fn victims_that_are_still_seen_are_not_followed_by_others() {
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let low = |name: &str| sized(name, 1, "2", json!({ "metadata": { "uid": format!("uid-{name}") } }));
    let mut state = snapshot(&nodes, &[(low("x"), "a"), (low("y"), "b")]);
    let urgent = sized("p", 9, "2", json!({}));
    state.nominate(Arc::clone(&urgent), "a");
    state.await_leaving(&urgent.key, &[low("x")]);
    check(&urgent, &state, "not eligible due to a terminating pod on the nominated node.");
    // Told again where room is made, the same are waited for.
    state.nominate(Arc::clone(&urgent), "a");
    assert!(state.awaits_leaving(&urgent.key));
    state.remove_pod(&low("x").key);
    assert_eq!(schedule(&urgent, &state, 0, &mut StdRng::seed_from_u64(1)), Ok("a"));
}
