//! Nodes fall silent, and pods leave them in their time.

use super::plan::{Bears, bears, taints};
use super::{run, run_eviction};
use crate::pods;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_clock::Clock;
use pintle_clock::Timestamp;
use pintle_types::Kind;
use pintle_types::k8s::api::coordination::v1::Lease;
use pintle_types::k8s::api::core::v1::{Node, Pod, Taint, Toleration};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};
use std::time::Duration;

fn node(ready: &str) -> Value {
    json!({
        "metadata": { "name": "node" },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    })
}

fn ready(cluster: &Cluster) -> String {
    let node = cluster.api.get::<Node>("", "node").unwrap();
    super::plan::condition(&node, "Ready").map(|ready| ready.status.clone()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_renews_its_lease_lives_and_one_that_stops_does_not() {
    let cluster = Cluster::new()
        .start(|context| run(context, Duration::from_secs(50)).boxed())
        .start(|context| run_eviction(context).boxed());
    cluster.create::<Node>(node("True")).await;
    cluster.create::<Lease>(json!({ "metadata": { "name": "node", "namespace": "kube-node-lease" } })).await;
    for (name, seconds) in [("short", json!(30)), ("patient", json!(null))] {
        cluster
            .create::<Pod>(json!({
                "metadata": { "name": name, "namespace": "d" },
                "spec": { "containers": [], "tolerations": [
                    { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                      "tolerationSeconds": seconds },
                ]},
            }))
            .await;
        cluster.report("d", name, "Running");
    }
    for _ in 0..12 {
        cluster.pass(10.0).await;
        cluster.change::<Lease>("kube-node-lease", "node", |lease| {
            lease.spec.get_or_insert_default().renew_time = Some(MicroTime(cluster.clock.now()));
        });
    }
    assert_eq!(ready(&cluster), "True");
    cluster.pass(45.0).await;
    assert_eq!(ready(&cluster), "True");
    cluster.until("it is unknown", |_| ready(&cluster) == "Unknown").await;
    cluster.until("no pod is ready", |api| api.all::<Pod>().iter().all(|pod| !pods::is_ready(pod))).await;
    let tainted = |api: &pintle_fake_api::FakeApi| {
        let taints = api.get::<Node>("", "node").and_then(|node| node.spec?.taints).unwrap_or_default();
        taints.iter().filter(|taint| taint.key == "node.kubernetes.io/unreachable").count() == 2
    };
    cluster.until("the taints", tainted).await;
    cluster.pass(20.0).await;
    assert!(!cluster.api.get::<Pod>("d", "short").unwrap().is_deleting());
    cluster.until("the short one goes", |api| api.get::<Pod>("d", "short").is_none_or(|pod| pod.is_deleting())).await;
    assert!(!cluster.api.get::<Pod>("d", "patient").unwrap().is_deleting());

    cluster.change::<Node>("", "node", |node| {
        let ready = &mut node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
        ready.status = "True".into();
        ready.last_heartbeat_time = Some(pintle_types::Time(cluster.clock.now_seconds()));
    });
    let clean = |api: &pintle_fake_api::FakeApi| {
        api.get::<Node>("", "node").and_then(|node| node.spec?.taints).unwrap_or_default().is_empty()
    };
    cluster.until("no taint left", clean).await;
}

#[tokio::test(start_paused = true)]
async fn taints_that_do_not_say_since_when_are_borne_from_when_they_are_seen() {
    let cluster = Cluster::new().start(|context| run_eviction(context).boxed());
    cluster.create::<Node>(node("True")).await;
    let toleration = json!({ "key": "mine", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 });
    let pod = json!({
        "metadata": { "name": "p", "namespace": "d" },
        "spec": { "nodeName": "node", "containers": [], "tolerations": [toleration] },
    });
    cluster.create::<Pod>(pod).await;
    let taint = |on: bool| {
        cluster.change::<Node>("", "node", |node| {
            let taint = Taint { key: "mine".into(), effect: "NoExecute".into(), ..Taint::default() };
            node.spec.get_or_insert_default().taints = on.then(|| vec![taint]);
        });
    };
    let goes = || cluster.api.get::<Pod>("d", "p").is_none_or(|pod| pod.is_deleting());
    // What was borne of a taint that went does not count for the next.
    for on in [true, false, true] {
        taint(on);
        cluster.pass(20.0).await;
        assert!(!goes());
    }
    cluster.pass(15.0).await;
    cluster.until("it goes", |_| goes()).await;
}

#[test]
fn taints_follow_conditions_and_leave_others_alone() {
    let mut object = node("False");
    object["spec"] = json!({
        "unschedulable": true,
        "taints": [
            { "key": "mine", "effect": "NoSchedule" },
            { "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" },
        ],
    });
    let found = taints(&Node::from_value(object).unwrap(), Timestamp::UNIX_EPOCH).unwrap();
    let texts: Vec<String> = found.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
    assert_eq!(
        texts,
        [
            "mine:NoSchedule",
            "node.kubernetes.io/not-ready:NoSchedule",
            "node.kubernetes.io/unschedulable:NoSchedule",
            "node.kubernetes.io/not-ready:NoExecute",
        ]
    );
    assert!(taints(&Node::from_value(node("True")).unwrap(), Timestamp::UNIX_EPOCH).is_none());
}

#[test]
fn the_shortest_toleration_counts() {
    let taint = |key: &str| Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() };
    let toleration = |key: &str, seconds: Option<i64>| Toleration {
        key: (!key.is_empty()).then(|| key.into()),
        operator: Some("Exists".into()),
        toleration_seconds: seconds,
        ..Toleration::default()
    };
    let seconds = |n| Bears::For(Duration::from_secs(n));
    for (tolerations, taints, expected) in [
        (vec![], vec![taint("a")], Bears::Not),
        (vec![toleration("a", None)], vec![taint("a")], Bears::Forever),
        (vec![toleration("a", Some(5)), toleration("b", Some(3))], vec![taint("a"), taint("b")], seconds(3)),
        (vec![toleration("a", Some(5))], vec![taint("a"), taint("b")], Bears::Not),
        (vec![toleration("", None), toleration("a", Some(-1))], vec![taint("a")], seconds(0)),
    ] {
        assert_eq!(bears(&tolerations, &taints), expected, "{tolerations:?} {taints:?}");
    }
}
