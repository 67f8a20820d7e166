//! Nodes are told how long to keep what they read.

use super::plan::{row, seconds};
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::k8s::api::core::v1::Node;
use serde_json::json;

#[test]
fn sizes_overlap() {
    let (small, middle) = (row(100, 0), row(101, 0));
    assert_eq!((seconds(small), seconds(middle)), (0, 15));
    assert_eq!(row(95, middle), middle, "a node less does not change it back");
    assert_eq!(row(89, middle), small);
    assert_eq!(seconds(row(5000, 0)), 300);
    assert_eq!(row(0, row(5000, 0)), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_told() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<Node>(json!({"metadata": {"name": "n"}})).await;
    let told = |node: Node| node.metadata.annotations?.get("node.alpha.kubernetes.io/ttl").cloned();
    cluster.until("it is told", |api| api.get::<Node>("", "n").and_then(told) == Some("0".into())).await;
}
