//! Pods come and go in order, and keep their names and claims.

use super::plan::ordinal_of;
use super::run;
use crate::pods;
use crate::testing::{Cluster, template};
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

fn set(replicas: i32, policy: &str) -> Value {
    json!({
        "metadata": { "name": "db", "namespace": "d" },
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "podManagementPolicy": policy,
            "selector": { "matchLabels": { "app": "db" } },
            "updateStrategy": { "type": "RollingUpdate" },
            "template": template("db", "db:1"),
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
        },
    })
}

fn status(cluster: &Cluster) -> StatefulSetStatus {
    cluster.api.get::<StatefulSet>("d", "db").and_then(|set| set.status).unwrap_or_default()
}

fn ready(cluster: &Cluster, count: i32) -> bool {
    let status = status(cluster);
    status.ready_replicas.unwrap_or_default() == count && status.replicas == count
}

#[tokio::test(start_paused = true)]
async fn pods_come_one_by_one_and_update_from_the_last() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<StatefulSet>(set(3, "OrderedReady")).await;
    cluster.until("the first", |api| api.all::<Pod>().len() == 1).await;
    cluster.pass(5.0).await;
    assert_eq!(cluster.pods(|_| true), ["db-0"]);
    cluster.run_pods_until("three ready", |_| ready(&cluster, 3)).await;
    let pod = cluster.api.get::<Pod>("d", "db-2").unwrap();
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-2"), Some("db")));
    assert_eq!(pod.label("apps.kubernetes.io/pod-index"), Some("2"));
    assert!(cluster.api.get::<PersistentVolumeClaim>("d", "data-db-2").is_some());

    let mut object = cluster.client.get::<StatefulSet>("d", "db").await.unwrap();
    object.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some("db:2".into());
    cluster.client.update(&object).await.unwrap();
    let updated = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("db:2");
    cluster
        .run_pods_until("all updated", |api| {
            let pods = api.all::<Pod>();
            assert!(pods.iter().filter(|pod| pods::is_ready(pod)).count() >= 2);
            let new: Vec<i32> =
                pods.iter().filter(|pod| updated(pod)).filter_map(|p| ordinal_of("db", p.name())).collect();
            assert!(new.iter().all(|n| (*n..3).all(|above| above == *n || new.contains(&above) || pods.len() < 3)));
            pods.iter().all(updated) && ready(&cluster, 3)
        })
        .await;
    let complete = |status: StatefulSetStatus| status.current_revision == status.update_revision;
    cluster
        .run_pods_until("the revision", |_| complete(status(&cluster)) && status(&cluster).updated_replicas == Some(3))
        .await;
    assert_eq!(cluster.api.all::<ControllerRevision>().len(), 2);

    object = cluster.client.get::<StatefulSet>("d", "db").await.unwrap();
    object.spec.as_mut().unwrap().replicas = Some(1);
    cluster.client.update(&object).await.unwrap();
    cluster.run_pods_until("one left", |_| ready(&cluster, 1)).await;
    assert_eq!(cluster.pods(|_| true), ["db-0"]);
    assert_eq!(cluster.api.all::<PersistentVolumeClaim>().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn parallel_pods_come_at_once_and_lost_ones_come_back() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<StatefulSet>(set(3, "Parallel")).await;
    cluster.until("all of them", |api| api.all::<Pod>().len() == 3).await;
    cluster.run_pods_until("three ready", |_| ready(&cluster, 3)).await;
    cluster.api.remove::<Pod>("d", "db-1");
    cluster.run_pods_until("it is back", |api| api.get::<Pod>("d", "db-1").is_some() && ready(&cluster, 3)).await;
}

#[test]
fn only_the_sets_own_names_have_ordinals() {
    for (name, expected) in
        [("db-0", Some(0)), ("db-12", Some(12)), ("db-01", None), ("db-x", None), ("dbx-1", None), ("db--1", None)]
    {
        assert_eq!(ordinal_of("db", name), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn claims_go_with_pods_that_are_scaled_away() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let mut object = set(2, "Parallel");
    object["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({ "whenDeleted": "Delete", "whenScaled": "Delete" });
    cluster.create::<StatefulSet>(object).await;
    cluster.run_pods_until("two ready", |_| ready(&cluster, 2)).await;
    let owners = |cluster: &Cluster, name: &str| -> Vec<String> {
        let claim = cluster.api.get::<PersistentVolumeClaim>("d", name).unwrap();
        claim.metadata.owner_references.into_iter().flatten().map(|owner| owner.kind).collect()
    };
    assert_eq!(owners(&cluster, "data-db-1"), ["StatefulSet"]);
    let mut object = cluster.client.get::<StatefulSet>("d", "db").await.unwrap();
    object.spec.as_mut().unwrap().replicas = Some(1);
    cluster.client.update(&object).await.unwrap();
    cluster.run_pods_until("one ready", |_| ready(&cluster, 1)).await;
    assert_eq!(owners(&cluster, "data-db-0"), ["StatefulSet"]);
    assert_eq!(owners(&cluster, "data-db-1"), ["Pod"], "the collector takes it away with its pod");
    // The ordinal comes back before its old claim is gone: the pod waits for that.
    object = cluster.client.get::<StatefulSet>("d", "db").await.unwrap();
    object.spec.as_mut().unwrap().replicas = Some(2);
    cluster.client.update(&object).await.unwrap();
    cluster.pass(5.0).await;
    assert_eq!(cluster.pods(|_| true), ["db-0"]);
    cluster.api.remove::<PersistentVolumeClaim>("d", "data-db-1");
    cluster.run_pods_until("two again", |_| ready(&cluster, 2)).await;
}

mod plans {
    use super::super::plan::{View, step};
    use crate::testing::template;
    use pintle_clock::Timestamp;
    use pintle_types::Kind;
    use pintle_types::k8s::api::apps::v1::{StatefulSet, StatefulSetStatus};
    use pintle_types::k8s::api::core::v1::Pod;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn view(replicas: i32, policy: &str, start: i32, rolling: Value) -> View {
        let set = StatefulSet::from_value(json!({ "spec": {
            "replicas": replicas, "podManagementPolicy": policy, "ordinals": { "start": start }, "serviceName": "",
            "selector": {}, "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling },
            "template": template("db", "db:1"),
        } }));
        View::of(&set.unwrap())
    }

    /// A pod by its ordinal and a letter for each of old or new, well or broken: `3ow` is old and well.
    fn pods(text: &str) -> BTreeMap<i32, Arc<Pod>> {
        let pod = |word: &str| {
            let (ordinal, letters) = word.split_at(word.len() - 2);
            let revision = if letters.starts_with('o') { "old" } else { "new" };
            let ready = if letters.ends_with('w') { "True" } else { "False" };
            let pod = Pod::from_value(json!({
                "metadata": { "name": format!("db-{ordinal}"), "labels": { "controller-revision-hash": revision } },
                "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
            }));
            (ordinal.parse().unwrap(), Arc::new(pod.unwrap()))
        };
        text.split_whitespace().map(pod).collect()
    }

    /// What to do, as `+0 -2`.
    fn check(view: &View, there: &str) -> String {
        let status = StatefulSetStatus { current_revision: Some("old".into()), ..StatefulSetStatus::default() };
        let step = step(view, &pods(there), &status, "new", Timestamp::UNIX_EPOCH);
        let created = step.create.iter().map(|(ordinal, new)| format!("+{ordinal}{}", if *new { "n" } else { "o" }));
        let deleted = step.delete.iter().map(|pod| pod.metadata.name.as_ref().unwrap().replace("db", ""));
        created.chain(deleted).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn steps_follow_order_partition_start_and_limit() {
        let none = json!({ "partition": 0 });
        let ordered = |replicas| view(replicas, "OrderedReady", 0, none.clone());
        let parallel = |replicas, rolling: Value| view(replicas, "Parallel", 0, rolling);
        let cases = [
            (ordered(3), "", "+0n"),
            (ordered(3), "0nw", "+1n"),
            (ordered(3), "0nb", ""),
            (ordered(3), "0ow 1ow 2ow", "-2"),
            (ordered(3), "0ow 1ow 2nb", ""),
            (ordered(3), "0ow 1ow 2nw", "-1"),
            // Going back needs a hand: a broken pod is not replaced in order.
            (ordered(3), "0ow 1ow 2ob", ""),
            (ordered(1), "0nw 1nw 2nw", "-2"),
            (ordered(1), "0nw 1nb 2nw", "-2"),
            (ordered(1), "0nw 1nb 2nb", ""),
            (ordered(1), "0nw 1nw 2nb", "-2"),
            (parallel(3, none.clone()), "1ow", "+0n +2n"),
            (parallel(3, none.clone()), "0ow 1ow 2ob", "-2"),
            (parallel(1, none.clone()), "0nw 1nb 2nb", "-2 -1"),
            (view(3, "OrderedReady", 0, json!({ "partition": 2 })), "0ow 1ow 2nw", ""),
            (view(3, "Parallel", 0, json!({ "partition": 2 })), "", "+0o +1o +2n"),
            (view(3, "Parallel", 5, json!({ "partition": 2 })), "", "+5o +6o +7n"),
            (view(3, "OrderedReady", 5, json!({ "partition": 1 })), "5ow 6ow 7nw", "-6"),
            (view(2, "OrderedReady", 5, none.clone()), "0nw 5nw 6nw", "-0"),
            (parallel(4, json!({ "partition": 0, "maxUnavailable": 2 })), "0ow 1ow 2ow 3ow", "-3 -2"),
            (parallel(4, json!({ "partition": 0, "maxUnavailable": 2 })), "0ow 1ow 2ow 3nb", "-2"),
            (parallel(4, json!({ "partition": 0, "maxUnavailable": 2 })), "0ow 1ow 2nb 3nb", ""),
            (parallel(4, json!({ "partition": 0, "maxUnavailable": 1 })), "0ob 1ow 2ow 3ow", "-0"),
            // Percentages are rounded down, but not to nothing.
            (parallel(4, json!({ "partition": 0, "maxUnavailable": "70%" })), "0ow 1ow 2ow 3ow", "-3 -2"),
            (parallel(4, json!({ "partition": 0, "maxUnavailable": "10%" })), "0ow 1ow 2ow 3ow", "-3"),
            (parallel(4, json!({ "partition": 3, "maxUnavailable": 2 })), "0ow 1ow 2ow 3ow", "-3"),
        ];
        for (view, there, expected) in cases {
            assert_eq!(check(&view, there), expected, "{there} {view:?}");
        }
    }

    /// The examples of the documentation: "Deployment and Scaling Guarantees", and of the tutorial: "Staging an update",
    /// "Rolling out a canary" and "Phased Roll Outs".
    #[test]
    fn documented_steps_are_taken() {
        let at = |replicas, partition: i32| view(replicas, "OrderedReady", 0, json!({ "partition": partition }));
        let cases = [
            // web-0 fails after web-1 runs, but before web-2 is there: web-2 has to wait for web-0.
            (at(3, 0), "1nw", "+0n"),
            (at(3, 0), "0nb 1nw", ""),
            (at(3, 0), "0nw 1nw", "+2n"),
            // Of three one is to be left: web-2 goes first, and web-1 only while web-0 is well.
            (at(1, 0), "0nw 1nw 2nw", "-2"),
            (at(1, 0), "0nb 1nw", ""),
            (at(1, 0), "0nw 1nw", "-1"),
            // Staged: with a partition of three nothing is updated, and web-2 comes back as it was.
            (at(3, 3), "0ow 1ow 2ow", ""),
            (at(3, 3), "0ow 1ow", "+2o"),
            // A canary: from two on. web-1 comes back as it was, web-2 as it is now.
            (at(3, 2), "0ow 1ow 2ow", "-2"),
            (at(3, 2), "0ow 1ow 2nw", ""),
            (at(3, 2), "0ow 2nw", "+1o"),
            (at(3, 2), "0ow 1ow", "+2n"),
            // Phased: the rest follows from the highest ordinal on.
            (at(3, 0), "0ow 1ow 2nw", "-1"),
            (at(3, 0), "0ow 1nw 2nw", "-0"),
        ];
        for (view, there, expected) in cases {
            assert_eq!(check(&view, there), expected, "{there} {view:?}");
        }
    }
}
