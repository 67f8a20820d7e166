//! A namespace goes when everything in it has gone, pods first.

use super::plan::{Progress, status};
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::core::v1::{ConfigMap, Namespace, Pod};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_namespace_is_emptied_pods_first_and_then_goes() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.api.serve("/api", json!({ "kind": "APIVersions", "versions": ["v1"] }));
    cluster.api.serve("/apis", json!({ "kind": "APIGroupList", "groups": [] }));
    let resource =
        |name: &str| json!({ "name": name, "namespaced": true, "verbs": ["delete", "deletecollection", "list"] });
    cluster.api.serve("/api/v1", json!({ "resources": [resource("pods"), resource("configmaps")] }));
    cluster
        .create::<Namespace>(json!({
            "metadata": { "name": "team" },
            "spec": { "finalizers": ["kubernetes"] },
            "status": { "phase": "Active" },
        }))
        .await;
    let object = |name: &str| json!({ "metadata": { "name": name, "namespace": "team" } });
    cluster.create::<ConfigMap>(object("config")).await;
    let mut held = object("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    held["spec"] = json!({ "containers": [] });
    cluster.create::<Pod>(held).await;

    cluster.change::<Namespace>("", "team", |namespace| {
        namespace.metadata.deletion_timestamp = namespace.metadata.creation_timestamp.clone();
    });
    let condition = |type_: &'static str| {
        let namespace = cluster.api.get::<Namespace>("", "team")?;
        namespace.status?.conditions?.into_iter().find(|condition| condition.type_ == type_)
    };
    cluster
        .until("the report", |_| condition("NamespaceFinalizersRemaining").is_some_and(|c| c.status == "True"))
        .await;
    assert_eq!(
        condition("NamespaceContentRemaining").unwrap().message.as_deref(),
        Some("Some resources are remaining: pods. has 1 resource instances")
    );
    assert_eq!(cluster.api.all::<ConfigMap>().len(), 1);

    cluster.api.remove::<Pod>("team", "held");
    cluster.until("it is gone", |api| api.all::<Namespace>().is_empty()).await;
    assert!(cluster.api.all::<ConfigMap>().is_empty());
}

#[test]
fn conditions_say_how_far_it_got() {
    let counts = |pairs: &[(&str, usize)]| pairs.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect();
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    for (progress, expected) in [
        (Progress::default(), vec![]),
        (
            Progress { remaining: counts(&[("configmaps.", 2), ("pods.", 1)]), ..Progress::default() },
            vec![
                "NamespaceContentRemaining SomeResourcesRemain: Some resources are remaining: configmaps. has 2 resource \
                 instances, pods. has 1 resource instances",
            ],
        ),
        (
            Progress { finalizers: counts(&[("example.com/hold", 3)]), ..Progress::default() },
            vec![
                "NamespaceFinalizersRemaining SomeFinalizersRemain: Some content in the namespace has finalizers \
                 remaining: example.com/hold in 3 resource instances",
            ],
        ),
        (
            Progress { undiscovered: texts(&["a/v1: gone"]), failures: texts(&["no", "never"]), ..Progress::default() },
            vec![
                "NamespaceDeletionDiscoveryFailure DiscoveryFailed: Discovery failed for some groups, 1 failing: a/v1: \
                 gone",
                "NamespaceDeletionContentFailure ContentDeletionFailed: Failed to delete all resource types, 2 \
                 remaining: no, never",
            ],
        ),
    ] {
        let is_complete = expected.iter().all(|text| text.starts_with("NamespaceFinalizersRemaining"));
        assert_eq!(progress.is_complete(), is_complete, "{progress:?}");
        let conditions = status(&Default::default(), &progress, Timestamp::UNIX_EPOCH).conditions.unwrap();
        assert_eq!(conditions.len(), 5);
        let told = conditions.into_iter().filter(|condition| condition.status == "True").map(|condition| {
            format!("{} {}: {}", condition.type_, condition.reason.unwrap(), condition.message.unwrap())
        });
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}
