//! ReplicaSets at work: creation, deletion, adoption, release, failures.

use super::plan::{Scaling, scale};
use super::{RcSets, RsSets, run};
use crate::ownership::controller_of;
use crate::testing::{Cluster, template};
use futures::FutureExt;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::apps::v1::ReplicaSet;
use pintle_types::k8s::api::core::v1::{Pod, ReplicationController};
use pintle_types::{Kind, Status};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn set(replicas: i32) -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": template("web", "hello"),
        },
    })
}

fn cluster() -> Cluster {
    Cluster::new().start(|context| run::<RsSets>(context).boxed())
}

fn status(cluster: &Cluster) -> (i32, i32, i32) {
    let status = cluster.api.get::<ReplicaSet>("default", "web").and_then(|set| set.status).unwrap_or_default();
    let of = |n: Option<i32>| n.unwrap_or_default();
    (status.replicas, of(status.ready_replicas), of(status.available_replicas))
}

#[tokio::test(start_paused = true)]
async fn pods_are_created_counted_and_deleted() {
    let cluster = cluster();
    cluster.create::<ReplicaSet>(set(3)).await;
    cluster.run_pods_until("three available", |_| status(&cluster) == (3, 3, 3)).await;
    let pods = cluster.api.all::<Pod>();
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| pod.name().starts_with("web-") && pod.label("app") == Some("web")));
    assert_eq!(controller_of(&pods[0].metadata).unwrap().kind, "ReplicaSet");

    // The newcomer that is not ready yet goes first.
    cluster.change::<ReplicaSet>("default", "web", |set| set.spec.as_mut().unwrap().replicas = Some(4));
    cluster.until("a fourth", |api| api.all::<Pod>().len() == 4).await;
    let newcomer = cluster.pods(|pod| pod.status.is_none());
    cluster.change::<ReplicaSet>("default", "web", |set| set.spec.as_mut().unwrap().replicas = Some(3));
    cluster.until("three again", |api| api.all::<Pod>().len() == 3).await;
    assert!(!cluster.pods(|_| true).contains(&newcomer[0]));
    cluster
        .until("the event", |_| cluster.events().contains(&format!("SuccessfulDelete: Deleted pod: {}", newcomer[0])))
        .await;
}

#[tokio::test(start_paused = true)]
async fn pods_change_sides_with_their_labels() {
    let cluster = cluster();
    let stray = json!({
        "metadata": { "name": "stray", "namespace": "default", "labels": { "app": "web" } },
        "spec": { "containers": [] },
    });
    cluster.create::<Pod>(stray).await;
    cluster.create::<ReplicaSet>(set(2)).await;
    cluster.run_pods_until("one made, one adopted", |_| status(&cluster) == (2, 2, 2)).await;
    let stray = cluster.api.get::<Pod>("default", "stray").unwrap();
    assert!(controller_of(&stray.metadata).is_some());

    cluster.change::<Pod>("default", "stray", |pod| pod.metadata.labels = None);
    cluster.run_pods_until("a replacement", |api| api.all::<Pod>().len() == 3).await;
    let asked = cluster.api.take_requests();
    let release = asked.iter().rev().find(|asked| asked.name == "stray").unwrap();
    assert_eq!(release.body["metadata"]["ownerReferences"][0]["$patch"], "delete");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_tried_again() {
    let cluster = cluster();
    let full = Arc::new(AtomicBool::new(true));
    let is_full = full.clone();
    cluster.api.react(move |asked| {
        let refuse = asked.method == "POST" && asked.resource.ends_with("/pods") && is_full.load(Ordering::Relaxed);
        refuse.then(|| Status::forbidden("", "pods", "web-x", "exceeded quota"))
    });
    cluster.create::<ReplicaSet>(set(2)).await;
    let failed =
        |set: ReplicaSet| set.status.and_then(|s| s.conditions).is_some_and(|c| c[0].type_ == "ReplicaFailure");
    cluster.until("the condition", |api| api.get::<ReplicaSet>("default", "web").is_some_and(failed)).await;
    full.store(false, Ordering::Relaxed);
    cluster.run_pods_until("both in the end", |_| status(&cluster) == (2, 2, 2)).await;
    let set = cluster.api.get::<ReplicaSet>("default", "web").unwrap();
    assert!(set.status.unwrap().conditions.is_none());
    let told = "FailedCreate: Error creating: pods \"web-x\" is forbidden: exceeded quota";
    assert!(cluster.events().contains(&told.to_owned()), "{:?}", cluster.events());
}

#[tokio::test(start_paused = true)]
async fn replication_controllers_work_alike() {
    let cluster = Cluster::new().start(|context| run::<RcSets>(context).boxed());
    let mut object = set(2);
    object["spec"]["selector"] = json!({ "app": "web" });
    cluster.create::<ReplicationController>(object).await;
    let ready = |rc: ReplicationController| rc.status.and_then(|status| status.ready_replicas) == Some(2);
    let holds = |api: &pintle_fake_api::FakeApi| api.get("default", "web").is_some_and(ready);
    cluster.run_pods_until("two ready", holds).await;
}

fn pod(name: &str, node: &str, phase: &str, cost: i32) -> Arc<Pod> {
    let ready = if phase == "Ready" { "True" } else { "False" };
    let phase = if phase == "Ready" { "Running" } else { phase };
    Arc::new(
        Pod::from_value(json!({
            "metadata": {
                "name": name,
                "uid": name,
                "annotations": { "controller.kubernetes.io/pod-deletion-cost": cost.to_string() },
            },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap(),
    )
}

#[test]
fn the_least_useful_pods_go_first() {
    let pods = vec![
        pod("ready", "a", "Ready", 0),
        pod("doubled-1", "b", "Ready", 0),
        pod("doubled-2", "b", "Ready", 0),
        pod("dear", "b", "Ready", 5),
        pod("running", "a", "Running", 0),
        pod("pending", "a", "Pending", 0),
        pod("unbound", "", "Pending", 0),
    ];
    let Scaling::Delete(chosen) = scale(0, &pods, &pods, Timestamp::UNIX_EPOCH) else { panic!("all are too many") };
    let names: Vec<&str> = chosen.iter().map(|pod| pod.name()).collect();
    assert_eq!(names, ["unbound", "pending", "running", "doubled-1", "doubled-2", "ready", "dear"]);
    assert_eq!(scale(7, &pods, &pods, Timestamp::UNIX_EPOCH), Scaling::Nothing);
    assert_eq!(scale(9, &pods, &pods, Timestamp::UNIX_EPOCH), Scaling::Create(2));
}
