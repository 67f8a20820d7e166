//! Rollouts from end to end, and the arithmetic behind them.

use super::plan::{Wanted, new_set_size, rescale, shrink_old};
use super::revision::{REVISION, template_hash};
use super::run;
use crate::pods;
use crate::replicaset::{self, RsSets};
use crate::testing::{Cluster, template};
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use pintle_types::k8s::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::{Value, json};
use std::cell::Cell;
use std::sync::Arc;

fn deployment(replicas: i32) -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": 600,
            "template": template("web", "hello:1"),
        },
    })
}

fn cluster() -> Cluster {
    Cluster::new().start(|context| run(context).boxed()).start(|context| replicaset::run::<RsSets>(context).boxed())
}

fn status(cluster: &Cluster) -> DeploymentStatus {
    cluster.api.get::<Deployment>("default", "web").and_then(|web| web.status).unwrap_or_default()
}

fn condition(cluster: &Cluster, type_: &str) -> Option<DeploymentCondition> {
    status(cluster).conditions?.into_iter().find(|condition| condition.type_ == type_)
}

fn is_rolled_out(cluster: &Cluster, image: &str, replicas: i32) -> bool {
    let web = cluster.api.get::<Deployment>("default", "web").unwrap();
    let status = web.status.clone().unwrap_or_default();
    let current = status.observed_generation == web.metadata.generation;
    let pods = cluster.api.all::<Pod>();
    current
        && status.updated_replicas == Some(replicas)
        && status.replicas == Some(replicas)
        && status.available_replicas == Some(replicas)
        && pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image))
        && condition(cluster, "Progressing").is_some_and(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"))
}

async fn set_image(cluster: &Cluster, image: &str) {
    let mut web = cluster.client.get::<Deployment>("default", "web").await.unwrap();
    web.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    cluster.client.update(&web).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rollout_an_update_and_a_way_back() {
    let cluster = cluster();
    cluster.create::<Deployment>(deployment(4)).await;
    cluster.run_pods_until("the first rollout", |_| is_rolled_out(&cluster, "hello:1", 4)).await;
    let first = cluster.api.all::<ReplicaSet>().remove(0);
    let events = cluster.events();
    let told = format!("ScalingReplicaSet: Scaled up replica set {} from 0 to 4", first.name());
    assert!(events.contains(&told), "{events:?}");
    assert_eq!(condition(&cluster, "Available").unwrap().reason.as_deref(), Some("MinimumReplicasAvailable"));
    let message = condition(&cluster, "Progressing").unwrap().message.unwrap();
    assert_eq!(message, format!("ReplicaSet {:?} has successfully progressed.", first.name()));

    set_image(&cluster, "hello:2").await;
    let worst = Cell::new((4, 4));
    cluster
        .run_pods_until("the update", |api| {
            let all = api.all::<Pod>();
            let ready = all.iter().filter(|pod| pods::is_ready(pod)).count();
            worst.set((worst.get().0.min(ready), worst.get().1.max(all.len())));
            is_rolled_out(&cluster, "hello:2", 4)
        })
        .await;
    assert!(worst.get().0 >= 3 && worst.get().1 <= 5, "{worst:?}");
    let web = cluster.api.get::<Deployment>("default", "web").unwrap();
    assert_eq!(web.annotation(REVISION), Some("2"));

    // A rollback is the old template again: the old ReplicaSet becomes the newest revision.
    set_image(&cluster, "hello:1").await;
    cluster.run_pods_until("the way back", |_| is_rolled_out(&cluster, "hello:1", 4)).await;
    let back = cluster.api.get::<ReplicaSet>("default", first.name()).unwrap();
    assert_eq!(back.annotation(REVISION), Some("3"));
    assert_eq!(back.annotation("deployment.kubernetes.io/revision-history"), Some("1"));

    // Of the history only one is kept.
    set_image(&cluster, "hello:3").await;
    cluster
        .run_pods_until("one more", |api| is_rolled_out(&cluster, "hello:3", 4) && api.all::<ReplicaSet>().len() == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let cluster = cluster();
    cluster.create::<Deployment>(deployment(2)).await;
    cluster.run_pods_until("the first rollout", |_| is_rolled_out(&cluster, "hello:1", 2)).await;
    let mut web = cluster.client.get::<Deployment>("default", "web").await.unwrap();
    web.spec.as_mut().unwrap().paused = Some(true);
    web.spec.as_mut().unwrap().replicas = Some(3);
    cluster.client.update(&web).await.unwrap();
    set_image(&cluster, "hello:2").await;
    cluster.run_pods_until("three of the old", |_| status(&cluster).available_replicas == Some(3)).await;
    assert_eq!(cluster.api.all::<ReplicaSet>().len(), 1);
    assert_eq!(condition(&cluster, "Progressing").unwrap().reason.as_deref(), Some("DeploymentPaused"));
}

#[tokio::test(start_paused = true)]
async fn recreate_waits_for_the_last_old_pod() {
    let cluster = cluster();
    let mut object = deployment(2);
    object["spec"]["strategy"] = json!({ "type": "Recreate" });
    cluster.create::<Deployment>(object).await;
    cluster.run_pods_until("the first rollout", |_| is_rolled_out(&cluster, "hello:1", 2)).await;
    set_image(&cluster, "hello:2").await;
    cluster
        .run_pods_until("the update", |api| {
            let images: std::collections::BTreeSet<_> =
                api.all::<Pod>().into_iter().map(|pod| pod.spec.unwrap().containers[0].image.clone()).collect();
            assert!(images.len() <= 1, "old and new pods side by side");
            is_rolled_out(&cluster, "hello:2", 2)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_stands_still_is_told_after_its_deadline() {
    let cluster = cluster();
    let mut object = deployment(1);
    object["spec"]["progressDeadlineSeconds"] = json!(60);
    cluster.create::<Deployment>(object).await;
    let timed_out =
        |c: DeploymentCondition| c.reason.as_deref() == Some("ProgressDeadlineExceeded") && c.status == "False";
    cluster.until("the condition", |_| condition(&cluster, "Progressing").is_some_and(timed_out)).await;
}

fn wanted(replicas: i32, surge: &str, unavailable: &str) -> Wanted {
    let value = |text: &str| text.parse::<i32>().map_or(json!(text), |number| json!(number));
    let object = json!({ "spec": {
        "replicas": replicas,
        "selector": {},
        "template": {},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": value(surge), "maxUnavailable": value(unavailable) },
        },
    }});
    Wanted::of(&Deployment::from_value(object).unwrap())
}

#[test]
fn percentages_round_up_for_surge_and_down_for_unavailable() {
    for (replicas, surge, unavailable, expected) in [
        (3, "25%", "25%", (1, 0)),
        (10, "25%", "25%", (3, 2)),
        (1, "0", "25%", (0, 1)),
        (1, "0%", "0%", (0, 1)),
        (4, "2", "1", (2, 1)),
        (2, "0", "5", (0, 2)),
        // The documentation: of 4 replicas by default between 3 and 5; of 30 % at least 70 % and at most 130 %.
        (4, "25%", "25%", (1, 1)),
        (10, "30%", "30%", (3, 3)),
    ] {
        let wanted = wanted(replicas, surge, unavailable);
        assert_eq!((wanted.surge, wanted.unavailable), expected, "{replicas} {surge} {unavailable}");
    }
}

fn set(name: &str, replicas: i32, available: i32, max: i32) -> Arc<ReplicaSet> {
    Arc::new(
        ReplicaSet::from_value(json!({
            "metadata": {
                "name": name,
                "uid": name,
                "creationTimestamp": format!("2024-01-0{}T00:00:00Z", name.len()),
                "annotations": { "deployment.kubernetes.io/max-replicas": max.to_string() },
            },
            "spec": { "replicas": replicas, "selector": {} },
            "status": { "replicas": replicas, "availableReplicas": available },
        }))
        .unwrap(),
    )
}

#[test]
fn old_sets_lose_unavailable_pods_first() {
    let (new, old) = (set("new", 2, 2, 0), [set("a", 4, 4, 0), set("bb", 4, 1, 0)]);
    let sizes: Vec<(String, i32)> = shrink_old(wanted(8, "25%", "25%"), &new, &old)
        .into_iter()
        .map(|size| (size.set.name().to_owned(), size.replicas))
        .collect();
    assert_eq!(sizes, [("a".to_owned(), 3), ("bb".to_owned(), 1)]);
    assert!(shrink_old(wanted(8, "0", "25%"), &set("new", 2, 0, 0), &[set("a", 6, 6, 0)]).is_empty());
    assert_eq!(new_set_size(wanted(8, "25%", "25%"), 2, &old), 2);
    assert_eq!(new_set_size(wanted(8, "25%", "25%"), 2, &[set("a", 6, 6, 0)]), 4);
}

/// The example of the documentation: three replicas of nginx, updated by the defaults. "Scaled up … to 1, scaled down …
/// to 2, up to 2, down to 1, up to 3, down to 0."
#[test]
fn a_documented_rollout_takes_the_documented_steps() {
    let (mut new, mut old, mut told) = (0, 3, Vec::new());
    while (new, old) != (3, 0) {
        let wanted = wanted(3, "25%", "25%");
        let size = new_set_size(wanted, new, &[set("old", old, old, 0)]);
        if size != new {
            told.push(format!("up to {size}"));
            new = size;
            continue;
        }
        // The new pods have become available by now.
        let smaller = shrink_old(wanted, &set("new", new, new, 0), &[set("old", old, old, 0)]);
        old = smaller.first().expect("there is always something to do").replicas;
        told.push(format!("down to {old}"));
    }
    assert_eq!(told, ["up to 1", "down to 2", "up to 2", "down to 1", "up to 3", "down to 0"]);
}

#[test]
fn a_changed_size_is_shared_in_proportion() {
    let (new, old) = (set("new", 5, 5, 13), [set("a", 8, 8, 13)]);
    let sizes: Vec<(String, i32)> = rescale(wanted(20, "3", "2"), Some(&new), &old)
        .into_iter()
        .map(|size| (size.set.name().to_owned(), size.replicas))
        .collect();
    assert_eq!(sizes, [("a".to_owned(), 14), ("new".to_owned(), 9)]);
}

/// The example of the documentation: ten replicas with three more and two fewer allowed are scaled to fifteen in the
/// middle of a rollout, and three of the five go to the old ReplicaSet.
#[test]
fn a_documented_size_is_shared_as_documented() {
    let (new, old) = (set("new", 5, 0, 13), [set("old", 8, 8, 13)]);
    let mut sizes: Vec<(String, i32)> = rescale(wanted(15, "3", "2"), Some(&new), &old)
        .into_iter()
        .map(|size| (size.set.name().to_owned(), size.replicas))
        .collect();
    sizes.sort();
    assert_eq!(sizes, [("new".to_owned(), 7), ("old".to_owned(), 11)]);
}

#[test]
fn the_hash_depends_on_the_template_and_on_collisions() {
    let template = |image: &str| serde_json::from_value::<PodTemplateSpec>(template("web", image)).unwrap();
    let one = template_hash(&template("a"), None);
    assert_eq!(one, template_hash(&template("a"), None));
    assert_ne!(one, template_hash(&template("b"), None));
    assert_ne!(one, template_hash(&template("a"), Some(1)));
    assert!(one.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)), "{one}");
}
