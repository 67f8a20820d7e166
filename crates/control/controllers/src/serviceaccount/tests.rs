//! Namespaces get what they must hold, and get it back.

use super::{run_accounts, run_root_ca};
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::k8s::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_namespace_gets_an_account_and_certificates_and_gets_them_back() {
    let cluster = Cluster::new()
        .start(|context| run_accounts(context).boxed())
        .start(|context| run_root_ca(context, "PEM".into()).boxed());
    cluster.create::<Namespace>(json!({ "metadata": { "name": "team" } })).await;
    let account = |api: &pintle_fake_api::FakeApi| api.get::<ServiceAccount>("team", "default").is_some();
    let certificates = |api: &pintle_fake_api::FakeApi| {
        let map = api.get::<ConfigMap>("team", "kube-root-ca.crt");
        map.and_then(|map| map.data).is_some_and(|data| data["ca.crt"] == "PEM")
    };
    cluster.until("both", |api| account(api) && certificates(api)).await;
    cluster.api.remove::<ServiceAccount>("team", "default");
    cluster.change::<ConfigMap>("team", "kube-root-ca.crt", |map| map.data = None);
    cluster.until("both again", |api| account(api) && certificates(api)).await;
}
