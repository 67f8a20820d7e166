//! Owners go in each of the three ways, and what they own with them or not.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_client::{DeleteOptions, Propagation};
use pintle_fake_api::FakeApi;
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::ReplicaSet;
use pintle_types::k8s::api::core::v1::{ConfigMap, Pod};
use serde_json::json;

fn cluster() -> Cluster {
    let cluster = Cluster::new();
    let resource = |name: &str, kind: &str| json!({ "name": name, "kind": kind, "namespaced": true, "verbs": ["delete", "list", "watch"] });
    cluster.api.serve("/api", json!({ "versions": ["v1"] }));
    cluster
        .api
        .serve("/api/v1", json!({ "resources": [resource("pods", "Pod"), resource("configmaps", "ConfigMap")] }));
    cluster.api.serve("/apis", json!({ "groups": [{ "preferredVersion": { "groupVersion": "apps/v1" } }] }));
    cluster.api.serve("/apis/apps/v1", json!({ "resources": [resource("replicasets", "ReplicaSet")] }));
    cluster
}

async fn owned(cluster: &Cluster, blocking: bool) -> ReplicaSet {
    let set = json!({ "metadata": { "name": "set", "namespace": "d" }, "spec": { "selector": {} } });
    let set = cluster.create::<ReplicaSet>(set).await;
    for name in ["one", "two"] {
        cluster
            .create::<Pod>(json!({
                "metadata": { "name": name, "namespace": "d", "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "set", "uid": set.uid(),
                    "controller": true, "blockOwnerDeletion": blocking,
                }]},
                "spec": { "nodeName": "node", "containers": [] },
            }))
            .await;
    }
    set
}

async fn delete_set(cluster: &Cluster, policy: Propagation) {
    let options = DeleteOptions { propagation_policy: Some(policy), ..DeleteOptions::default() };
    cluster.client.delete::<ReplicaSet>("d", "set", &options).await.unwrap();
}

fn deleting(api: &FakeApi) -> usize {
    api.all::<Pod>().iter().filter(|pod| pod.is_deleting()).count()
}

#[tokio::test(start_paused = true)]
async fn in_the_background_dependents_follow() {
    let cluster = cluster().start(|context| run(context).boxed());
    owned(&cluster, true).await;
    cluster.pass(1.0).await;
    assert_eq!(deleting(&cluster.api), 0);
    delete_set(&cluster, Propagation::Background).await;
    assert!(cluster.api.all::<ReplicaSet>().is_empty());
    cluster.until("the pods follow", |api| deleting(api) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn in_the_foreground_dependents_go_first() {
    let cluster = cluster().start(|context| run(context).boxed());
    owned(&cluster, true).await;
    delete_set(&cluster, Propagation::Foreground).await;
    cluster.until("the pods go", |api| deleting(api) == 2).await;
    cluster.api.remove::<Pod>("d", "one");
    cluster.pass(5.0).await;
    assert_eq!(cluster.api.all::<ReplicaSet>().len(), 1);
    cluster.api.remove::<Pod>("d", "two");
    cluster.until("the set goes", |api| api.all::<ReplicaSet>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay() {
    let cluster = cluster().start(|context| run(context).boxed());
    owned(&cluster, true).await;
    cluster.pass(1.0).await;
    delete_set(&cluster, Propagation::Orphan).await;
    cluster.until("the set goes", |api| api.all::<ReplicaSet>().is_empty()).await;
    cluster.pass(5.0).await;
    assert_eq!((cluster.api.all::<Pod>().len(), deleting(&cluster.api)), (2, 0));
    assert!(cluster.api.all::<Pod>().iter().all(|pod| pod.metadata.owner_references.iter().flatten().count() == 0));
}

#[tokio::test(start_paused = true)]
async fn what_an_absent_owner_left_behind_is_found_at_the_start() {
    let cluster = cluster();
    owned(&cluster, true).await;
    cluster.api.remove::<ReplicaSet>("d", "set");
    let stray = json!({ "metadata": { "name": "stray", "namespace": "d", "ownerReferences": [{
        "apiVersion": "example.com/v1", "kind": "Unheard", "name": "x", "uid": "x",
    }]}});
    cluster.create::<ConfigMap>(stray).await;
    let cluster = cluster.start(|context| run(context).boxed());
    cluster.until("the pods go", |api| deleting(api) == 2).await;
    // Nobody knows whether the owner of an unheard-of kind exists.
    assert_eq!(cluster.api.all::<ConfigMap>().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_owners_one_is_enough() {
    let cluster = cluster().start(|context| run(context).boxed());
    let set = owned(&cluster, true).await;
    let other = cluster.create::<ConfigMap>(json!({ "metadata": { "name": "other", "namespace": "d" } })).await;
    cluster.change::<Pod>("d", "one", |pod| {
        let mut second = pod.metadata.owner_references.as_ref().unwrap()[0].clone();
        (second.api_version, second.kind) = ("v1".into(), "ConfigMap".into());
        (second.name, second.uid, second.controller) = ("other".into(), other.uid().into(), None);
        pod.metadata.owner_references.as_mut().unwrap().push(second);
    });
    cluster.pass(1.0).await;
    delete_set(&cluster, Propagation::Background).await;
    cluster
        .until("one reference", |api| {
            api.get::<Pod>("d", "one")
                .is_some_and(|pod| pod.metadata.owner_references.is_some_and(|list| list.len() == 1))
        })
        .await;
    cluster.until("the other pod goes", |api| api.get::<Pod>("d", "two").is_none_or(|pod| pod.is_deleting())).await;
    assert!(!cluster.api.get::<Pod>("d", "one").unwrap().is_deleting(), "{}", set.uid());
}

#[tokio::test(start_paused = true)]
async fn a_circle_is_opened() {
    let cluster = cluster().start(|context| run(context).boxed());
    let names = ["one", "two", "three"];
    for name in names {
        cluster.create::<ConfigMap>(json!({ "metadata": { "name": name, "namespace": "d" } })).await;
    }
    for (name, owner) in names.iter().zip(["three", "one", "two"]) {
        let uid = cluster.api.get::<ConfigMap>("d", owner).unwrap().uid().to_owned();
        cluster.change::<ConfigMap>("d", name, |map| {
            let reference = json!([{
                "apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid, "blockOwnerDeletion": true,
            }]);
            map.metadata.owner_references = Some(serde_json::from_value(reference).unwrap());
        });
    }
    cluster.pass(1.0).await;
    assert_eq!(cluster.api.all::<ConfigMap>().len(), 3);
    let options = DeleteOptions { propagation_policy: Some(Propagation::Foreground), ..DeleteOptions::default() };
    cluster.client.delete::<ConfigMap>("d", "one", &options).await.unwrap();
    cluster.until("all are gone", |api| api.all::<ConfigMap>().is_empty()).await;
}
