//! What is used stays until it no longer is.

use super::plan::finalizers;
use super::run_claims;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_client::DeleteOptions;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

#[test]
fn finalizers_come_with_life_and_go_with_use() {
    let metadata = |list: &[&str], deleting: bool| ObjectMeta {
        finalizers: Some(list.iter().map(|it| (*it).to_owned()).collect()),
        deletion_timestamp: deleting.then_some(pintle_types::Time(pintle_clock::Timestamp::UNIX_EPOCH)),
        ..ObjectMeta::default()
    };
    assert_eq!(finalizers(&metadata(&[], false), "f", || false), Some(vec!["f".into()]));
    assert_eq!(finalizers(&metadata(&["f"], false), "f", || false), None);
    assert_eq!(finalizers(&metadata(&["f", "g"], true), "f", || true), None);
    assert_eq!(finalizers(&metadata(&["f", "g"], true), "f", || false), Some(vec!["g".into()]));
    assert_eq!(finalizers(&metadata(&[], true), "f", || false), None, "too late");
}

#[tokio::test(start_paused = true)]
async fn a_claim_waits_for_its_pod() {
    let cluster = Cluster::new().start(|context| run_claims(context).boxed());
    let claim = json!({"metadata": {"name": "c", "namespace": "d"}});
    cluster.create::<PersistentVolumeClaim>(claim).await;
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
    let spec = json!({"nodeName": "n", "containers": [], "volumes": [volume]});
    cluster.create::<Pod>(json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec})).await;
    let protected = |claim: PersistentVolumeClaim| claim.metadata.finalizers.is_some_and(|list| !list.is_empty());
    cluster.until("protected", |api| api.get::<PersistentVolumeClaim>("d", "c").is_some_and(protected)).await;
    cluster.client.delete::<PersistentVolumeClaim>("d", "c", &DeleteOptions::default()).await.unwrap();
    cluster.pass(5.0).await;
    assert!(cluster.api.get::<PersistentVolumeClaim>("d", "c").unwrap().is_deleting());
    cluster.api.remove::<Pod>("d", "p");
    cluster.until("it goes", |api| api.get::<PersistentVolumeClaim>("d", "c").is_none()).await;
}
