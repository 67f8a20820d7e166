//! Volumes are attached where pods want them, refused where they can't be shared, and detached when that is safe.

use super::plan::{Care, Handle, OnNode, Step, plan};
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use pintle_types::k8s::api::storage::v1::{CSIDriver, VolumeAttachment};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn handle() -> Handle {
    Handle { driver: "disk.example.com".into(), volume: "vol-1".into() }
}

#[test]
fn names_are_upstreams() {
    assert_eq!(handle().unique(), "kubernetes.io/csi/disk.example.com^vol-1");
    assert_eq!(Handle::parse(&handle().unique()), Some(handle()));
    assert_eq!(Handle::parse("kubernetes.io/iscsi/x"), None);
    // What `echo -n vol-1disk.example.comnode-1 | sha256sum` says.
    let name = handle().attachment("node-1");
    assert_eq!(name, "csi-19c42f43d69fa1f381555c6802be2757a07267e9705a867fd59297bc87dd0694");
}

fn pod(name: &str) -> Arc<Pod> {
    let (namespace, name) = name.split_once('/').unwrap();
    Arc::new(Pod::from_value(json!({ "metadata": { "name": name, "namespace": namespace } })).unwrap())
}

/// A node: its pods, and in one word how far the attachment is.
fn on(node: &str, pods: &[&str], state: &str) -> OnNode {
    let attachment = |metadata: Value, status: Value| {
        let value = json!({ "metadata": metadata, "spec": { "attacher": "a", "nodeName": node, "source": {} }, "status": status });
        Some(Arc::new(VolumeAttachment::from_value(value).unwrap()))
    };
    let attachment = match state.split('+').next().unwrap() {
        "none" => None,
        "asked" | "late" => attachment(json!({}), Value::Null),
        "failed" => attachment(json!({}), json!({ "attached": false, "attachError": { "message": "no disk" } })),
        "attached" => attachment(json!({}), json!({ "attached": true })),
        "leaving" => attachment(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }), json!({ "attached": true })),
        other => panic!("{other}"),
    };
    OnNode {
        node: node.into(),
        pods: pods.iter().map(|name| pod(name)).collect(),
        attachment,
        age: Duration::from_secs(if state.starts_with("late") { 130 } else { 5 }),
        reported: state.contains("+told"),
        in_use: state.contains("+used"),
        care: match state {
            _ if state.contains("+gone") => Care::None,
            _ if state.contains("+silent") => Care::ForAWhile,
            _ => Care::Full,
        },
        unwanted: Duration::from_secs(if state.contains("+long") { 400 } else { 60 }),
    }
}

#[track_caller]
fn check(shared: bool, places: &[OnNode], expected: &[Step]) {
    assert_eq!(plan("pv", &handle(), shared, places), expected);
}

#[test]
fn a_volume_is_attached_where_pods_want_it() {
    check(false, &[on("n", &["d/a"], "none")], &[Step::Attach]);
    check(false, &[on("n", &["d/a"], "asked")], &[Step::Wait(Duration::from_secs(115))]);
    let words = "timed out waiting for external-attacher of disk.example.com CSI driver to attach volume vol-1";
    let late = Step::Failed(words.into(), Some(Duration::from_secs(110)));
    check(false, &[on("n", &["d/a"], "late")], &[late]);
    check(false, &[on("n", &["d/a"], "failed")], &[Step::Failed("no disk".into(), None)]);
    check(false, &[on("n", &["d/a"], "attached")], &[Step::Report]);
    check(false, &[on("n", &["d/a"], "attached+told")], &[Step::Nothing]);
    // What the node was told is not so any more.
    check(false, &[on("n", &["d/a"], "none+told")], &[Step::Unreport]);
    check(false, &[on("n", &["d/a"], "leaving+told")], &[Step::Unreport]);
    let leaving = Step::Failed("volume attachment is being deleted".into(), None);
    check(false, &[on("n", &["d/a"], "leaving")], &[leaving]);
}

#[test]
fn a_volume_of_one_node_goes_to_no_other() {
    let refused = |who: &[&str]| {
        Step::Refuse(who.iter().map(|who| format!("Multi-Attach error for volume \"pv\" {who}")).collect())
    };
    let own = refused(&["Volume is already used by pod(s) a, b"]);
    check(false, &[on("m", &["d/a", "d/b"], "attached+told"), on("n", &["d/c"], "none")], &[Step::Nothing, own]);
    let both = refused(&[
        "Volume is already used by pod(s) a and 1 pod(s) in different namespaces",
        "Volume is already used by pod(s) x and 1 pod(s) in different namespaces",
        "Volume is already used by 2 pod(s) in different namespaces",
    ]);
    let users = on("m", &["d/a", "e/x"], "attached+told");
    check(false, &[users, on("n", &["d/c", "e/c", "f/c"], "none")], &[Step::Nothing, both]);
    // The pod is gone, its kubelet has the volume still.
    let gone = refused(&["Volume is already exclusively attached to one node and can't be attached to another"]);
    let wait = Step::Wait(Duration::from_secs(300));
    check(false, &[on("m", &[], "attached+told+used"), on("n", &["d/c"], "none")], &[wait, gone]);
    // On its way from or to another node: nobody has to hear of it.
    check(false, &[on("m", &[], "attached+told"), on("n", &["d/c"], "none")], &[Step::Detach, Step::Nothing]);
    check(false, &[on("m", &[], "leaving"), on("n", &["d/c"], "none")], &[Step::Nothing, Step::Nothing]);
    check(false, &[on("m", &["d/a"], "none"), on("n", &["d/c"], "none")], &[Step::Attach, Step::Nothing]);
    // Shared ones go everywhere.
    check(true, &[on("m", &["d/a"], "attached+told"), on("n", &["d/c"], "none")], &[Step::Nothing, Step::Attach]);
}

#[test]
fn a_volume_is_detached_when_that_is_safe() {
    for (state, expected) in [
        ("none", Step::Nothing),
        ("none+told", Step::Unreport),
        ("attached+told", Step::Detach),
        ("asked", Step::Detach),
        ("failed", Step::Detach),
        ("leaving", Step::Nothing),
        ("leaving+told", Step::Unreport),
        ("attached+told+used", Step::Wait(Duration::from_secs(300))),
        ("attached+told+used+long", Step::Nothing),
        ("attached+told+used+silent", Step::Wait(Duration::from_secs(300))),
        ("attached+told+used+silent+long", Step::Detach),
        ("attached+told+used+gone", Step::Detach),
    ] {
        assert_eq!(plan("pv", &handle(), false, &[on("n", &[], state)]), [expected], "{state}");
    }
}

/// A cluster of nodes with a bound claim, and a pod that uses it on each of the nodes given.
async fn cluster(nodes: &[&str], pods: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    for node in nodes {
        let managed = json!({ "volumes.kubernetes.io/controller-managed-attach-detach": "true" });
        let status = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        cluster.create::<Node>(json!({ "metadata": { "name": node, "annotations": managed }, "status": status })).await;
    }
    let claim = json!({
        "metadata": { "name": "data", "namespace": "d" },
        "spec": { "volumeName": "pv" }, "status": { "phase": "Bound" },
    });
    let claim: PersistentVolumeClaim = cluster.create(claim).await;
    let volume = json!({
        "metadata": { "name": "pv" },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" },
            "claimRef": { "namespace": "d", "name": "data", "uid": claim.uid() },
            "csi": { "driver": "disk.example.com", "volumeHandle": "vol-1" },
        },
    });
    cluster.create::<PersistentVolume>(volume).await;
    for (name, node) in pods {
        cluster.create::<Pod>(user(name, node)).await;
    }
    cluster
}

fn user(name: &str, node: &str) -> Value {
    let volume = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "data" } });
    json!({
        "metadata": { "name": name, "namespace": "d" },
        "spec": { "nodeName": node, "containers": [], "volumes": [volume] },
    })
}

fn attachment(cluster: &Cluster, node: &str) -> Option<VolumeAttachment> {
    cluster.api.get::<VolumeAttachment>("", &handle().attachment(node))
}

/// What an external attacher does.
fn answer(cluster: &Cluster, node: &str, status: Value) {
    cluster.change::<VolumeAttachment>("", &handle().attachment(node), |attachment| {
        let mut value = attachment.to_value();
        value["status"] = status;
        *attachment = VolumeAttachment::from_value(value).unwrap();
    });
}

fn told(cluster: &Cluster, node: &str) -> Vec<String> {
    let status = cluster.api.get::<Node>("", node).unwrap().status.unwrap();
    status.volumes_attached.into_iter().flatten().map(|volume| volume.name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_gets_its_volume_and_gives_it_back() {
    let cluster = cluster(&["m"], &[("a", "m")]).await;
    cluster.until("it is asked for", |_| attachment(&cluster, "m").is_some()).await;
    let made = attachment(&cluster, "m").unwrap();
    assert_eq!(made.spec.attacher, "disk.example.com");
    assert_eq!(made.spec.source.persistent_volume_name.as_deref(), Some("pv"));
    let error = json!({ "message": "rpc error: no room", "time": "2026-01-01T00:00:00Z" });
    answer(&cluster, "m", json!({ "attached": false, "attachError": error }));
    let words = "FailedAttachVolume: AttachVolume.Attach failed for volume \"pv\" : rpc error: no room";
    cluster.until("the pod is told", |_| cluster.events().iter().any(|event| event == words)).await;
    answer(&cluster, "m", json!({ "attached": true }));
    cluster.until("the node is told", |_| told(&cluster, "m") == [handle().unique()]).await;
    let words = "SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"pv\" ";
    cluster.until("the pod is told", |_| cluster.events().iter().any(|event| event == words)).await;
    // While the kubelet uses it, it stays.
    cluster.change::<Node>("", "m", |node| {
        node.status.get_or_insert_default().volumes_in_use = Some(vec![handle().unique()]);
    });
    cluster.api.remove::<Pod>("d", "a");
    cluster.pass(600.0).await;
    assert!(attachment(&cluster, "m").is_some(), "the node is well and uses it");
    cluster.change::<Node>("", "m", |node| node.status.get_or_insert_default().volumes_in_use = None);
    cluster.until("it is detached", |_| attachment(&cluster, "m").is_none()).await;
    assert!(told(&cluster, "m").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_volume_leaves_a_node_that_is_silent_for_too_long_or_out_of_service() {
    for service in [true, false] {
        let cluster = cluster(&["m", "n"], &[("a", "m")]).await;
        cluster.until("it is asked for", |_| attachment(&cluster, "m").is_some()).await;
        answer(&cluster, "m", json!({ "attached": true }));
        cluster.until("the node is told", |_| told(&cluster, "m") == [handle().unique()]).await;
        cluster.change::<Node>("", "m", |node| {
            let status = node.status.get_or_insert_default();
            status.volumes_in_use = Some(vec![handle().unique()]);
            status.conditions.iter_mut().flatten().for_each(|condition| condition.status = "Unknown".into());
        });
        cluster.api.remove::<Pod>("d", "a");
        cluster.create::<Pod>(user("b", "n")).await;
        let words = "FailedAttachVolume: Multi-Attach error for volume \"pv\" \
                     Volume is already exclusively attached to one node and can't be attached to another";
        cluster.until("b is refused", |_| cluster.events().iter().any(|event| event == words)).await;
        if service {
            cluster.pass(350.0).await;
            assert!(attachment(&cluster, "m").is_some(), "too early");
            cluster.pass(20.0).await;
        } else {
            cluster.change::<Node>("", "m", |node| {
                let taint = json!([{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }]);
                node.spec.get_or_insert_default().taints = serde_json::from_value(taint).unwrap();
            });
        }
        cluster.until("it moves", |_| attachment(&cluster, "m").is_none() && attachment(&cluster, "n").is_some()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_attaches_nothing_is_asked_for_nothing() {
    let cluster = cluster(&["m"], &[]).await;
    let driver = json!({ "metadata": { "name": "disk.example.com" }, "spec": { "attachRequired": false } });
    cluster.create::<CSIDriver>(driver).await;
    cluster.pass(1.0).await;
    cluster.create::<Pod>(user("a", "m")).await;
    cluster.pass(10.0).await;
    assert!(attachment(&cluster, "m").is_none());
}
