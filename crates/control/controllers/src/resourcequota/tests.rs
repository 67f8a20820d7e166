//! A quota's status follows its limits and what there is.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_clock::Clock;
use pintle_types::k8s::api::core::v1::{ConfigMap, Pod, ResourceQuota};
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

#[tokio::test(start_paused = true)]
async fn kinds_that_are_only_counted_are_given_back_at_once() {
    let cluster = Cluster::new();
    let maps = json!({"name": "configmaps", "kind": "ConfigMap", "namespaced": true, "verbs": ["list", "watch"]});
    cluster.api.serve("/api", json!({"versions": ["v1"]}));
    cluster.api.serve("/api/v1", json!({"resources": [maps]}));
    cluster.api.serve("/apis", json!({"groups": []}));
    let cluster = cluster.start(|context| run(context).boxed());
    for name in ["a", "b"] {
        cluster.create::<ConfigMap>(json!({"metadata": {"name": name, "namespace": "default"}})).await;
        cluster.create::<ConfigMap>(json!({"metadata": {"name": name, "namespace": "other"}})).await;
    }
    let hard = json!({"configmaps": "5", "count/configmaps": "5", "count/things.example.com": "1"});
    cluster
        .create::<ResourceQuota>(json!({"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}}))
        .await;
    cluster.until("two count", |api| used(api, "configmaps").as_deref() == Some("2")).await;
    assert_eq!(used(&cluster.api, "count/configmaps").as_deref(), Some("2"));
    assert_eq!(used(&cluster.api, "count/things.example.com").as_deref(), Some("0"));
    let before = cluster.clock.now();
    cluster.api.remove::<ConfigMap>("default", "a");
    cluster.until("one counts", |api| used(api, "configmaps").as_deref() == Some("1")).await;
    let took = cluster.clock.now().as_second() - before.as_second();
    assert!(took <= 1, "it took {took} s");
}

/// The example of the documentation, "Configure Memory and CPU Quotas for a Namespace": a pod that asks for 600 MiB and
/// 400m, and may have 800 MiB and 800m.
#[test]
fn the_documented_quota_counts_what_pods_ask_for() {
    use super::plan::{Present, counted, lowers, status};
    use pintle_quota::{Amounts, Resource};
    let hard = json!({ "requests.cpu": "1", "requests.memory": "1Gi", "limits.cpu": "2", "limits.memory": "2Gi",
        "pods": "4" });
    let pod = |phase: &str| {
        let resources = json!({ "limits": { "memory": "800Mi", "cpu": "800m" },
            "requests": { "memory": "600Mi", "cpu": "400m" } });
        json!({ "metadata": { "name": "quota-mem-cpu-demo", "namespace": "d" }, "status": { "phase": phase },
            "spec": { "containers": [{ "name": "c", "resources": resources }] } })
    };
    let quota = json!({ "metadata": { "name": "mem-cpu-demo", "namespace": "d" }, "spec": { "hard": hard } });
    let texts = |amounts: &Amounts| -> Vec<String> {
        amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    };
    let count = |objects: Vec<serde_json::Value>| {
        let present = [Present { resource: Resource::new("", "pods"), objects }];
        status(&quota, &present, 0)
    };
    let (hard, none) = count(Vec::new());
    assert_eq!(hard.len(), none.len(), "what is limited is told, also when none of it is used");
    let (_, used) = count(vec![pod("Running"), pod("Succeeded")]);
    let expected = ["limits.cpu=800m", "limits.memory=800Mi", "pods=1", "requests.cpu=400m", "requests.memory=600Mi"];
    assert_eq!(texts(&used), expected);
    assert!(lowers(&used, &none) && !lowers(&none, &used) && !lowers(&used, &used));
    let names = json!({ "count/deployments.apps": "2", "secrets": "1", "count/pods": "3", "services": "1" });
    let counted = counted(&pintle_quota::parse(&names));
    assert_eq!(counted, [("apps".to_owned(), "deployments".to_owned()), (String::new(), "secrets".to_owned())]);
}
