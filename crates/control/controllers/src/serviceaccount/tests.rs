//! Namespaces get what they must hold, and get it back.

use super::{run_accounts, run_cleaner, run_root_ca, run_tokens};
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::k8s::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use serde_json::json;
use std::sync::Arc;

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

const TYPE: &str = "kubernetes.io/service-account-token";

fn holds(api: &pintle_fake_api::FakeApi, name: &str) -> Option<String> {
    let data = api.get::<Secret>("team", name)?.data?;
    let all = ["token", "ca.crt", "namespace"].map(|key| String::from_utf8(data.get(key)?.0.clone()).ok());
    Some(all.into_iter().collect::<Option<Vec<_>>>()?.join(" "))
}

#[tokio::test(start_paused = true)]
async fn a_secret_of_an_account_holds_its_token_as_long_as_the_account_is_there() {
    let cluster = Cluster::new().start(|context| {
        run_tokens(
            context,
            "PEM".into(),
            Arc::new(|account, _| Ok(format!("for-{}", account.metadata.name.as_ref().unwrap()))),
        )
        .boxed()
    });
    let account =
        json!({"metadata": {"name": "bot", "namespace": "team"}, "secrets": [{"name": "s"}, {"name": "own"}]});
    cluster.create::<ServiceAccount>(account).await;
    let secret = |name: &str, account: &str| {
        json!({"type": TYPE, "metadata": {"name": name, "namespace": "team",
            "annotations": {"kubernetes.io/service-account.name": account}}})
    };
    cluster.create::<Secret>(secret("s", "bot")).await;
    cluster.create::<Secret>(secret("t", "bot")).await;
    cluster.create::<Secret>(secret("orphan", "nobody")).await;
    let filled = Some("for-bot PEM team".to_owned());
    cluster.until("both are filled", |api| holds(api, "s") == filled && holds(api, "t") == filled).await;
    cluster.until("there is no such account", |api| api.get::<Secret>("team", "orphan").is_none()).await;
    cluster.change::<Secret>("team", "t", |secret| drop(secret.data.as_mut().unwrap().remove("token")));
    cluster.until("it is filled again", |api| holds(api, "t") == filled).await;
    cluster.api.remove::<Secret>("team", "s");
    let named = |api: &pintle_fake_api::FakeApi| {
        let secrets = api.get::<ServiceAccount>("team", "bot").and_then(|account| account.secrets).unwrap_or_default();
        secrets.into_iter().filter_map(|reference| reference.name).collect::<Vec<_>>()
    };
    cluster.until("the account no longer names it", |api| named(api) == ["own"]).await;
    cluster.api.remove::<ServiceAccount>("team", "bot");
    cluster.until("the token goes with the account", |api| api.all::<Secret>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_nobody_uses_become_invalid_after_a_year_and_go_after_another() {
    let cluster = Cluster::new();
    let year = 365 * 24 * 3600;
    let map = "kube-apiserver-legacy-service-account-token-tracking";
    cluster
        .create::<ConfigMap>(
            json!({"metadata": {"name": map, "namespace": "kube-system"}, "data": {"since": "2023-11-14"}}),
        )
        .await;
    let named = ["unused", "mounted", "used"].map(|name| json!({"name": name}));
    cluster.create::<ServiceAccount>(json!({"metadata": {"name": "bot", "namespace": "team"}, "secrets": named})).await;
    for name in ["unused", "mounted", "used", "own"] {
        let annotations = json!({"kubernetes.io/service-account.name": "bot"});
        let metadata = json!({"name": name, "namespace": "team", "annotations": annotations});
        cluster.create::<Secret>(json!({"type": TYPE, "metadata": metadata})).await;
    }
    cluster
        .create::<Pod>(json!({"metadata": {"name": "p", "namespace": "team"}, "spec": {"containers": [],
        "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "mounted"}}]}}]}}))
        .await;
    let cluster = cluster.start(|context| run_cleaner(context).boxed());
    cluster.pass(f64::from(year) + 3.0 * 24.0 * 3600.0 - 7200.0).await;
    let labels = |api: &pintle_fake_api::FakeApi, name: &str| {
        let secret = api.get::<Secret>("team", name).unwrap();
        secret.metadata.labels.unwrap_or_default().into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
    };
    assert_eq!(labels(&cluster.api, "unused"), ["kubernetes.io/legacy-token-invalid-since=2024-11-14"]);
    cluster.change::<Secret>("team", "used", |secret| {
        let label = ("kubernetes.io/legacy-token-last-used".to_owned(), "2024-11-16".to_owned());
        secret.metadata.labels = Some([label].into());
    });
    for kept in ["mounted", "own"] {
        assert!(labels(&cluster.api, kept).is_empty(), "{kept}");
    }
    cluster.pass(f64::from(year)).await;
    cluster.until("it is gone", |api| api.get::<Secret>("team", "unused").is_none()).await;
    for kept in ["mounted", "own", "used"] {
        assert!(cluster.api.get::<Secret>("team", kept).is_some(), "{kept}");
    }
}
