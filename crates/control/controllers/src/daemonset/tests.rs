//! One pod per fitting node, replaced one after the other.

use super::run;
use crate::pods;
use crate::testing::{Cluster, template};
use futures::FutureExt;
use pintle_fake_api::FakeApi;
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::DaemonSet;
use pintle_types::k8s::api::core::v1::{Node, Pod};
use serde_json::json;
use std::collections::BTreeMap;

async fn cluster() -> Cluster {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    for name in ["a", "b", "c"] {
        cluster.create::<Node>(json!({ "metadata": { "name": name, "labels": { "disk": "fast" } } })).await;
    }
    let mut template = template("agent", "agent:1");
    template["spec"]["nodeSelector"] = json!({ "disk": "fast" });
    cluster
        .create::<DaemonSet>(json!({
            "metadata": { "name": "agent", "namespace": "d" },
            "spec": { "selector": { "matchLabels": { "app": "agent" } }, "template": template },
        }))
        .await;
    cluster
}

/// Binds pods to the nodes that they are meant for, runs them, and removes the deleted ones.
fn run_pods(cluster: &Cluster, api: &FakeApi) {
    for pod in api.all::<Pod>() {
        if pod.is_deleting() {
            api.remove::<Pod>("d", pod.name());
        } else if pod.status.is_none() {
            let node = super::plan::node_of(&pod).unwrap().to_owned();
            cluster.report("d", pod.name(), "Running");
            cluster.change::<Pod>("d", pod.name(), |pod| pod.spec.as_mut().unwrap().node_name = Some(node));
        }
    }
}

fn nodes_of(api: &FakeApi, image: &str) -> Vec<String> {
    let fits =
        |pod: &Pod| pods::is_active(pod) && pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image);
    let mut nodes: Vec<String> =
        api.all::<Pod>().iter().filter(|pod| fits(pod)).map(|pod| pods::node_name(pod).to_owned()).collect();
    nodes.sort();
    nodes
}

fn ready(cluster: &Cluster, count: i32) -> bool {
    let status = cluster.api.get::<DaemonSet>("d", "agent").and_then(|set| set.status).unwrap_or_default();
    (status.desired_number_scheduled, status.number_ready, status.updated_number_scheduled)
        == (count, count, Some(count))
}

#[tokio::test(start_paused = true)]
async fn each_fitting_node_has_one_pod() {
    let cluster = cluster().await;
    cluster
        .until("three", |api| {
            run_pods(&cluster, api);
            ready(&cluster, 3)
        })
        .await;
    assert_eq!(nodes_of(&cluster.api, "agent:1"), ["a", "b", "c"]);
    cluster.change::<Node>("", "b", |node| node.metadata.labels = Some(BTreeMap::new()));
    cluster
        .until("two", |api| {
            run_pods(&cluster, api);
            ready(&cluster, 2)
        })
        .await;
    assert_eq!(nodes_of(&cluster.api, "agent:1"), ["a", "c"]);
    cluster.create::<Node>(json!({ "metadata": { "name": "new", "labels": { "disk": "fast" } } })).await;
    cluster
        .until("three again", |api| {
            run_pods(&cluster, api);
            ready(&cluster, 3)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_update_takes_one_node_after_the_other() {
    let cluster = cluster().await;
    cluster
        .until("three", |api| {
            run_pods(&cluster, api);
            ready(&cluster, 3)
        })
        .await;
    let mut set = cluster.client.get::<DaemonSet>("d", "agent").await.unwrap();
    set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some("agent:2".into());
    cluster.client.update(&set).await.unwrap();
    cluster
        .until("all updated", |api| {
            run_pods(&cluster, api);
            let well = api.all::<Pod>().iter().filter(|pod| pods::is_ready(pod)).count();
            assert!(well >= 2, "{well}");
            nodes_of(api, "agent:2") == ["a", "b", "c"] && ready(&cluster, 3)
        })
        .await;
}
