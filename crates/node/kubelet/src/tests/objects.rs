//! Objects that pods refer to, as an API server tells of them.

use super::api_server::Server;
use crate::api::ObjectRef;
use crate::objects::Objects;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

#[tokio::test]
async fn trust_bundles_are_watched_while_a_pod_wants_some() {
    let server = Server::new();
    let path = |name: &str| format!("/apis/certificates.k8s.io/v1beta1/clustertrustbundles/{name}");
    let put = |name: &str, text: &str| {
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
            "metadata": {"name": name}, "spec": {"trustBundle": text},
        });
        server.put(&path(name), object);
    };
    put("a", "1");
    let (objects, wake) = (Objects::new(server.client()), Arc::new(Notify::new()));
    assert!(objects.trust_bundles().await.is_err(), "nothing is watched for nobody");
    let pins = objects.pin(&BTreeSet::from([ObjectRef::TrustBundles]), &wake);
    let become_ = async |expected: &[(&str, &str)]| {
        let wait = async {
            loop {
                let all = objects.trust_bundles().await.unwrap();
                let got: Vec<_> = all.iter().map(|(name, b)| (name.as_str(), b.spec.trust_bundle.as_str())).collect();
                if got == expected {
                    return;
                }
                wake.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the watch tells of changes");
    };
    become_(&[("a", "1")]).await;
    put("b", "2");
    become_(&[("a", "1"), ("b", "2")]).await;
    put("a", "3");
    become_(&[("a", "3"), ("b", "2")]).await;
    server.remove(&path("a"));
    become_(&[("b", "2")]).await;
    drop(pins);
    assert!(objects.trust_bundles().await.is_err());
}
