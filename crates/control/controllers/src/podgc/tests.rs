//! Left-over pods go, but not in a hurry.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::k8s::api::core::v1::{Node, Pod};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_gone_go_after_some_time() {
    let cluster = Cluster::new();
    cluster.create::<Node>(json!({ "metadata": { "name": "node" } })).await;
    cluster.create::<Pod>(json!({ "metadata": { "name": "a", "namespace": "d" }, "spec": { "containers": [] } })).await;
    cluster.report("d", "a", "Running");
    let cluster = cluster.start(|context| run(context).boxed());
    cluster.pass(60.0).await;
    cluster.api.remove::<Node>("", "node");
    cluster.pass(30.0).await;
    assert_eq!(cluster.api.all::<Pod>().len(), 1);
    cluster.until("the pod goes", |api| api.all::<Pod>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_without_a_node_goes_at_once() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let pod = json!({
        "metadata": { "name": "a", "namespace": "d", "deletionTimestamp": "2024-01-01T00:00:00Z" },
        "spec": { "containers": [] },
    });
    cluster.create::<Pod>(pod).await;
    cluster.until("the pod goes", |api| api.all::<Pod>().is_empty()).await;
}
