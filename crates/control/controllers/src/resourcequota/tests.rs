//! A quota's status follows its limits and what there is.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::k8s::api::core::v1::{Pod, ResourceQuota};
use serde_json::json;

fn used(api: &pintle_fake_api::FakeApi, name: &str) -> Option<String> {
    let status = api.get::<ResourceQuota>("default", "q")?.status?;
    Some(status.used?.get(name)?.0.clone())
}

#[tokio::test(start_paused = true)]
async fn what_goes_is_given_back() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    for name in ["a", "b"] {
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]});
        cluster.create::<Pod>(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})).await;
    }
    let hard = json!({"pods": "5", "requests.cpu": "1", "services": "2"});
    cluster
        .create::<ResourceQuota>(json!({"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}}))
        .await;
    cluster.until("two pods count", |api| used(api, "pods").as_deref() == Some("2")).await;
    assert_eq!(used(&cluster.api, "requests.cpu").as_deref(), Some("200m"));
    assert_eq!(used(&cluster.api, "services").as_deref(), Some("0"));
    cluster.report("default", "a", "Succeeded");
    cluster.until("one pod counts", |api| used(api, "pods").as_deref() == Some("1")).await;
    cluster.api.remove::<Pod>("default", "b");
    cluster.until("none counts", |api| used(api, "requests.cpu").as_deref() == Some("0")).await;
}
