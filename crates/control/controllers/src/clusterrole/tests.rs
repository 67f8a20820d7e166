//! Aggregating roles get the rules of the roles that they select.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::k8s::api::rbac::v1::ClusterRole;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn an_aggregating_role_follows_the_roles_that_it_selects() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster
        .create::<ClusterRole>(json!({
            "metadata": { "name": "admin" },
            "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "to": "admin" } }] },
            "rules": [],
        }))
        .await;
    let part = |name: &str, verb: &str| {
        let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": [verb] }]);
        json!({ "metadata": { "name": name, "labels": { "to": "admin" } }, "rules": rules })
    };
    cluster.create::<ClusterRole>(part("one", "get")).await;
    cluster.create::<ClusterRole>(part("two", "list")).await;
    cluster.create::<ClusterRole>(part("same", "get")).await;
    let rules = |api: &pintle_fake_api::FakeApi| {
        api.get::<ClusterRole>("", "admin").and_then(|role| role.rules).unwrap_or_default().len()
    };
    cluster.until("two rules", |api| rules(api) == 2).await;
    cluster.api.remove::<ClusterRole>("", "two");
    cluster.until("one rule", |api| rules(api) == 1).await;
}
