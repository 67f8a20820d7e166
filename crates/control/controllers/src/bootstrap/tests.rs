//! What is signed, and which tokens last.

use super::plan::signature;
use super::{run_cleaner, run_signer};
use crate::testing::Cluster;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use pintle_types::k8s::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

fn token(id: &str, change: impl FnOnce(&mut Value)) -> Value {
    let data = |text: &str| STANDARD.encode(text);
    let mut data = json!({"token-id": data(id), "token-secret": data("0123456789abcdef"),
        "usage-bootstrap-signing": data("true")});
    change(&mut data);
    json!({"metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token", "data": data})
}

#[test]
fn signatures_are_detached_ones() {
    // What `openssl dgst -sha256 -hmac secret` makes of `HEADER.CONTENT`, both in base64url.
    let expected = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImpvZSJ9..rJYb5rw_0f7HxuYD92qlrq1pViisqR0FiOj1lnSv7vk";
    assert_eq!(signature("Hello, Bootstrap", "joe", "secret"), expected);
}

#[tokio::test(start_paused = true)]
async fn what_everybody_may_read_is_signed_with_every_token_for_as_long_as_it_lasts() {
    let cluster =
        Cluster::new().start(|context| run_signer(context).boxed()).start(|context| run_cleaner(context).boxed());
    cluster
        .create::<ConfigMap>(json!({"metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": "text", "jws-kubeconfig-old": "stale"}}))
        .await;
    // The cluster's time is 2023-11-14T22:13:20Z.
    let soon = STANDARD.encode("2023-11-14T22:15:20Z");
    cluster.create::<Secret>(token("abcdef", |data| data["expiration"] = soon.into())).await;
    cluster.create::<Secret>(token("123456", |_| {})).await;
    cluster.create::<Secret>(token("silent", |data| data["usage-bootstrap-signing"] = Value::Null)).await;
    let signed_by = |api: &pintle_fake_api::FakeApi| -> Vec<String> {
        let data = api.get::<ConfigMap>("kube-public", "cluster-info").and_then(|map| map.data).unwrap_or_default();
        data.keys().filter_map(|key| key.strip_prefix("jws-kubeconfig-").map(str::to_owned)).collect()
    };
    cluster.until("both sign", |api| signed_by(api) == ["123456", "abcdef"]).await;
    cluster.until("one is left", |api| signed_by(api) == ["123456"]).await;
    assert!(cluster.api.get::<Secret>("kube-system", "bootstrap-token-abcdef").is_none());
    assert!(cluster.api.get::<Secret>("kube-system", "bootstrap-token-123456").is_some());
}
