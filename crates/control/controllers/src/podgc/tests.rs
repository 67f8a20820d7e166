//! Left-over pods go, but not in a hurry.

use super::plan::{Finished, Leftover, leftover};
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_gone_go_after_some_time() {
    let cluster = Cluster::new();
    cluster.create::<Node>(json!({ "metadata": { "name": "node" } })).await;
    cluster.create::<Pod>(json!({ "metadata": { "name": "a", "namespace": "d" }, "spec": { "containers": [] } })).await;
    cluster.report("d", "a", "Running");
    let cluster = cluster.start(|context| run(context).boxed());
    cluster.pass(60.0).await;
    cluster.api.remove::<Node>("", "node");
    cluster.pass(30.0).await;
    assert_eq!(cluster.api.all::<Pod>().len(), 1);
    cluster.until("the pod goes", |api| api.all::<Pod>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_without_a_node_goes_at_once() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let pod = json!({
        "metadata": { "name": "a", "namespace": "d", "deletionTimestamp": "2024-01-01T00:00:00Z" },
        "spec": { "containers": [] },
    });
    cluster.create::<Pod>(pod).await;
    cluster.until("the pod goes", |api| api.all::<Pod>().is_empty()).await;
}

/// A node that is ready or not, and out of service or not.
fn node(ready: &str, taint: &str) -> Value {
    json!({
        "metadata": { "name": "node" },
        "spec": { "taints": [{ "key": taint, "effect": "NoExecute" }] },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    })
}

const DOWN: &str = "node.kubernetes.io/out-of-service";

#[tokio::test(start_paused = true)]
async fn deleted_pods_go_once_their_node_is_out_of_service() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<Node>(node("Unknown", "node.kubernetes.io/unreachable")).await;
    for (name, deleted) in [("stays", Value::Null), ("goes", json!("2024-01-01T00:00:00Z"))] {
        let metadata = json!({ "name": name, "namespace": "d", "deletionTimestamp": deleted });
        cluster.create::<Pod>(json!({ "metadata": metadata, "spec": { "nodeName": "node", "containers": [] } })).await;
    }
    cluster.pass(300.0).await;
    assert_eq!(cluster.api.all::<Pod>().len(), 2);
    cluster.change::<Node>("", "node", |it| *it = Node::from_value(node("Unknown", DOWN)).unwrap());
    cluster.until("the deleted one goes", |api| api.get::<Pod>("d", "goes").is_none()).await;
    cluster.pass(60.0).await;
    assert!(cluster.api.get::<Pod>("d", "stays").is_some());
}

#[test]
fn pods_are_left_over_when_no_kubelet_will_remove_them() {
    let ready = || Some(node("True", "mine"));
    for (deleted, name, node, expected) in [
        (false, "", None, None),
        (true, "", None, Some(Leftover::Unscheduled)),
        (false, "node", None, Some(Leftover::Orphaned)),
        (true, "node", None, Some(Leftover::Orphaned)),
        (true, "node", ready(), None),
        (true, "node", Some(node("Unknown", "mine")), None),
        (true, "node", Some(node("Unknown", DOWN)), Some(Leftover::OutOfService)),
        (true, "node", Some(node("False", DOWN)), Some(Leftover::OutOfService)),
        // Its kubelet is back, and removes them itself.
        (true, "node", Some(node("True", DOWN)), None),
        (false, "node", Some(node("Unknown", DOWN)), None),
    ] {
        let deleted = deleted.then_some("2024-01-01T00:00:00Z");
        let metadata = json!({ "name": "p", "namespace": "d", "deletionTimestamp": deleted });
        let pod = json!({ "metadata": metadata, "spec": { "nodeName": name, "containers": [] } });
        let parsed = node.clone().map(|node| Node::from_value(node).unwrap());
        let found = leftover(&Pod::from_value(pod).unwrap(), parsed.as_ref());
        assert_eq!(found, expected, "{deleted:?} {name} {node:?}");
    }
}

#[test]
fn of_finished_pods_the_evicted_go_first_and_then_the_oldest() {
    let pod = |name: &str, phase: &str, reason: &str, hour: i32| {
        let created = format!("2024-01-01T{hour:02}:00:00Z");
        Pod::from_value(json!({
            "metadata": { "name": name, "namespace": "d", "creationTimestamp": created },
            "status": { "phase": phase, "reason": reason },
        }))
        .unwrap()
    };
    let mut finished = Finished::keeping(2);
    let mut told = |old: Option<&Pod>, new: Option<&Pod>| -> Vec<String> {
        finished.change(old, new).into_iter().map(|key: ObjectKey| key.name).collect()
    };
    let none: [&str; 0] = [];
    let (old, young) = (pod("old", "Succeeded", "", 1), pod("young", "Failed", "", 5));
    assert_eq!(told(None, Some(&old)), none);
    assert_eq!(told(None, Some(&young)), none);
    assert_eq!(told(None, Some(&pod("runs", "Running", "", 0))), none);
    let (runs, evicted) = (pod("late", "Running", "", 7), pod("late", "Failed", "Evicted", 7));
    assert_eq!(told(Some(&runs), Some(&evicted)), ["late"]);
    assert_eq!(told(Some(&evicted), None), none);
    let (b, a) = (pod("b", "Failed", "", 1), pod("a", "Failed", "", 1));
    assert_eq!(told(None, Some(&b)), ["b"], "of the same age the first by name");
    assert_eq!(told(None, Some(&a)), ["a", "b"]);
    assert_eq!(told(Some(&a), None), none);
    assert!(finished.is_surplus(&b) && !finished.is_surplus(&old) && !finished.is_surplus(&young));
}
