//! Nodes fall silent, and pods leave them in their time.

use super::plan::{Bears, bears, taints};
use super::zones::Execute;
use super::{Settings, run, run_eviction};
use crate::pods;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_clock::Clock;
use pintle_clock::Timestamp;
use pintle_fake_api::FakeApi;
use pintle_types::k8s::api::coordination::v1::Lease;
use pintle_types::k8s::api::core::v1::{Node, Pod, Taint, Toleration};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::MicroTime;
use pintle_types::{Kind, Status, Time};
use serde_json::{Value, json};
use std::time::Duration;

fn node(ready: &str) -> Value {
    json!({
        "metadata": { "name": "node" },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    })
}

fn ready(cluster: &Cluster, name: &str) -> String {
    let node = cluster.api.get::<Node>("", name).unwrap();
    super::plan::condition(&node, "Ready").map(|ready| ready.status.clone()).unwrap_or_default()
}

/// A node that says that it is ready, or is not, and gives another sign of life with it.
fn says(cluster: &Cluster, name: &str, ready: &str) {
    let condition = json!({ "type": "Ready", "status": ready, "lastHeartbeatTime": Time(cluster.clock.now_seconds()) });
    let object = json!({ "metadata": { "name": name }, "status": { "conditions": [condition] } });
    let said = Node::from_value(object).unwrap();
    match cluster.api.get::<Node>("", name) {
        Some(node) => cluster.api.put(&Node { status: said.status, ..node }),
        None => cluster.api.put(&said),
    };
}

/// The taints of a node, shortened.
fn shown(api: &FakeApi, name: &str) -> Vec<String> {
    let taints = api.get::<Node>("", name).and_then(|node| node.spec?.taints).unwrap_or_default();
    let short = |taint: &Taint| format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect);
    taints.iter().map(short).collect()
}

/// Runs the controller with a grace that ends no node.
fn patient() -> Cluster {
    Cluster::new().start(|context| {
        let grace = Duration::from_secs(86_400);
        run(context, Settings { grace, ..Settings::default() }).boxed()
    })
}

#[tokio::test(start_paused = true)]
async fn a_node_that_renews_its_lease_lives_and_one_that_stops_does_not() {
    let cluster = Cluster::new()
        .start(|context| run(context, Settings::default()).boxed())
        .start(|context| run_eviction(context).boxed());
    cluster.create::<Node>(node("True")).await;
    says(&cluster, "other", "True");
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
        says(&cluster, "other", "True");
    }
    assert_eq!(ready(&cluster, "node"), "True");
    cluster.pass(45.0).await;
    says(&cluster, "other", "True");
    assert_eq!(ready(&cluster, "node"), "True");
    cluster.until("it is unknown", |_| ready(&cluster, "node") == "Unknown").await;
    cluster.until("no pod is ready", |api| api.all::<Pod>().iter().all(|pod| !pods::is_ready(pod))).await;
    assert_eq!(shown(&cluster.api, "node"), ["unreachable:NoSchedule"]);
    let tainted = ["unreachable:NoSchedule", "unreachable:NoExecute"];
    cluster.until("the taints", |api| shown(api, "node") == tainted).await;
    says(&cluster, "other", "True");
    cluster.pass(20.0).await;
    assert!(!cluster.api.get::<Pod>("d", "short").unwrap().is_deleting());
    cluster.until("the short one goes", |api| api.get::<Pod>("d", "short").is_none_or(|pod| pod.is_deleting())).await;
    assert!(!cluster.api.get::<Pod>("d", "patient").unwrap().is_deleting());

    says(&cluster, "node", "True");
    cluster.until("no taint left", |api| shown(api, "node").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_of_a_zone_are_left_one_after_the_other_and_none_once_all_are_away() {
    let cluster = patient();
    for name in ["a", "b", "c"] {
        says(&cluster, name, "True");
    }
    // All were ready once, and the zone's token is back.
    cluster.pass(60.0).await;
    says(&cluster, "a", "False");
    says(&cluster, "b", "False");
    cluster.pass(4.0).await;
    assert_eq!([shown(&cluster.api, "a"), shown(&cluster.api, "b")], [["not-ready:NoSchedule"]; 2]);
    cluster.pass(2.0).await;
    assert_eq!(shown(&cluster.api, "a"), ["not-ready:NoSchedule", "not-ready:NoExecute"]);
    assert_eq!(shown(&cluster.api, "b"), ["not-ready:NoSchedule"]);
    // Whose taint only changes its key does not wait.
    says(&cluster, "a", "Unknown");
    cluster.pass(1.0).await;
    assert_eq!(shown(&cluster.api, "a"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert_eq!(shown(&cluster.api, "b"), ["not-ready:NoSchedule"]);
    cluster.pass(9.0).await;
    assert_eq!(shown(&cluster.api, "b"), ["not-ready:NoSchedule", "not-ready:NoExecute"]);

    says(&cluster, "c", "False");
    cluster.pass(1.0).await;
    let shows = ["unreachable:NoSchedule", "not-ready:NoSchedule", "not-ready:NoSchedule"];
    assert_eq!(["a", "b", "c"].map(|name| shown(&cluster.api, name)), shows.map(|taint| [taint]));
    cluster.pass(600.0).await;
    assert_eq!(["a", "b", "c"].map(|name| shown(&cluster.api, name)), shows.map(|taint| [taint]));

    says(&cluster, "c", "True");
    cluster.pass(9.0).await;
    assert_eq!(["a", "b"].map(|name| shown(&cluster.api, name).len()), [1, 1]);
    assert!(shown(&cluster.api, "c").is_empty());
    cluster.pass(2.0).await;
    assert_eq!(["a", "b"].map(|name| shown(&cluster.api, name).len()), [2, 1]);
    cluster.pass(10.0).await;
    assert_eq!(["a", "b"].map(|name| shown(&cluster.api, name).len()), [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_taint_that_could_not_be_written_is_tried_again_and_costs_no_second_token() {
    let cluster = patient();
    for name in ["a", "b"] {
        says(&cluster, name, "True");
    }
    cluster.pass(60.0).await;
    says(&cluster, "a", "False");
    cluster.pass(4.0).await;
    let mut refusals = 3;
    cluster.api.react(move |asked| {
        let refused = asked.method == "PUT" && asked.name == "a" && refusals > 0;
        refusals -= i32::from(refused);
        refused.then(|| Status::conflict("", "nodes", "a", "the object has been modified"))
    });
    cluster.pass(2.0).await;
    assert_eq!(shown(&cluster.api, "a"), ["not-ready:NoSchedule", "not-ready:NoExecute"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_while_no_node_was_ready_says_nothing() {
    let cluster = Cluster::new().start(|context| run(context, Settings::default()).boxed());
    says(&cluster, "a", "False");
    says(&cluster, "b", "False");
    cluster.pass(45.0).await;
    says(&cluster, "a", "True");
    cluster.pass(40.0).await;
    says(&cluster, "a", "True");
    assert_eq!(ready(&cluster, "b"), "False");
    cluster.pass(11.0).await;
    assert_eq!(ready(&cluster, "b"), "Unknown");
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
    let found = taints(&Node::from_value(object).unwrap(), Execute::Keep, Timestamp::UNIX_EPOCH).unwrap();
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
    for (ready, execute, expected) in [
        ("True", Execute::Add, None),
        ("False", Execute::Keep, Some(vec![("not-ready", "NoSchedule")])),
        ("False", Execute::Remove, Some(vec![("not-ready", "NoSchedule")])),
        ("Unknown", Execute::Add, Some(vec![("unreachable", "NoSchedule"), ("unreachable", "NoExecute")])),
    ] {
        let found = taints(&Node::from_value(node(ready)).unwrap(), execute, Timestamp::UNIX_EPOCH);
        let found = found.map(|taints| taints.into_iter().map(|taint| (taint.key, taint.effect)).collect::<Vec<_>>());
        let full = |(key, effect): (&str, &str)| (format!("node.kubernetes.io/{key}"), effect.to_owned());
        assert_eq!(found, expected.map(|taints| taints.into_iter().map(full).collect()), "{ready} {execute:?}");
    }
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
