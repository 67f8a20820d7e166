//! A pod's ephemeral volume is a claim of the pod's own, and comes back while the pod lives.

use super::plan;
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_pod_has_its_claim_while_it_lives() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let template = json!({
        "metadata": { "labels": { "type": "scratch" } },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    let volume = json!({ "name": "scratch", "ephemeral": { "volumeClaimTemplate": template } });
    let plain = json!({ "name": "plain", "emptyDir": {} });
    let spec = json!({ "containers": [], "volumes": [plain, volume] });
    let pod = cluster.create::<Pod>(json!({ "metadata": { "name": "p", "namespace": "d" }, "spec": spec })).await;
    let claim = || cluster.api.get::<PersistentVolumeClaim>("d", "p-scratch");
    cluster.until("the claim", |_| claim().is_some()).await;
    let found = claim().unwrap();
    assert!(plan::is_for(&found, &pod));
    assert_eq!(found.label("type"), Some("scratch"));
    assert_eq!(cluster.api.all::<PersistentVolumeClaim>().len(), 1);
    cluster.api.remove::<PersistentVolumeClaim>("d", "p-scratch");
    cluster.until("it is back", |_| claim().is_some()).await;
    let mut other = claim().unwrap();
    other.metadata.owner_references = None;
    assert!(!plan::is_for(&other, &pod));
}
