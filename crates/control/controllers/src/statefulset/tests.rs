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
