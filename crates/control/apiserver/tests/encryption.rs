//! Encryption at rest under a whole server: what the disk has, and what becomes of it when keys change.

mod support;

use http::{Method, StatusCode};
use pintle_kinds::Table;
use pintle_store::sealed::{Configuration, Rule};
use pintle_store::{EmbeddedStore, KeyRange, RangeRequest, SealedStore, Store};
use serde_json::json;
use std::sync::Arc;
use support::Cluster;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const KEYS: [(&str, &str); 2] =
    [("k1", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("k2", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=")];

/// Rules by which the first of these keys writes secrets, and gadgets of a definition.
fn rules(keys: &[&str]) -> Vec<Rule> {
    let keys: Vec<_> = keys
        .iter()
        .map(|name| json!({"name": name, "secret": KEYS.iter().find(|(known, _)| known == name).unwrap().1}))
        .collect();
    let text = json!({
        "kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{"resources": ["secrets", "gadgets.g.io"], "providers": [{"aesgcm": {"keys": keys}}, {"identity": {}}]}],
    });
    let table = Table::builtin();
    let known = table.iter().map(|def| (&*def.group, &*def.resource, &*def.storage.key_prefix));
    Configuration::parse(&text.to_string()).unwrap().rules(known)
}

async fn stored(disk: &EmbeddedStore, key: &str) -> String {
    let range = KeyRange::key(key.to_owned());
    let found = disk.range(RangeRequest { range, at: None, limit: 0 }).await.unwrap();
    String::from_utf8_lossy(&found.kvs[0].value).into_owned()
}

#[tokio::test]
async fn the_disk_has_no_secret_plain_whichever_key_writes() {
    let disk = Arc::new(EmbeddedStore::in_memory().unwrap());
    let key = "/registry/secrets/default/s";
    let path = format!("{SECRETS}/s");
    let plain = Cluster::over(disk.clone(), |_, _| {}).await;
    plain.create(SECRETS, json!({"metadata": {"name": "s"}, "stringData": {"password": "hush-hush"}})).await;
    assert!(stored(&disk, key).await.starts_with('{'));
    drop(plain);

    let first = Arc::new(SealedStore::new(disk.clone(), rules(&["k1"])));
    let cluster = Cluster::over(first.clone(), |_, _| {}).await;
    let secret = cluster.get(&path).await.json();
    assert_eq!(secret["data"]["password"], "aHVzaC1odXNo", "what was there before is read");
    let same = cluster.admin(Method::PUT, &path, secret.clone()).await;
    assert_eq!(same.code, StatusCode::OK, "{same:?}");
    let raw = stored(&disk, key).await;
    assert!(raw.starts_with("k8s:enc:aesgcm:v1:k1:") && !raw.contains("aHVzaC1odXNo"), "{raw}");
    cluster.create("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "c"}})).await;
    assert!(stored(&disk, "/registry/configmaps/default/c").await.starts_with('{'));
    let definition = json!({"metadata": {"name": "gadgets.g.io"}, "spec": {
        "group": "g.io", "scope": "Cluster", "names": {"plural": "gadgets", "kind": "Gadget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
    }});
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let gadget = json!({"apiVersion": "g.io/v1", "kind": "Gadget", "metadata": {"name": "x"}});
    while cluster.admin(Method::POST, "/apis/g.io/v1/gadgets", gadget.clone()).await.code != StatusCode::CREATED {
        tokio::task::yield_now().await;
    }
    assert!(stored(&disk, "/registry/g.io/gadgets/x").await.starts_with("k8s:enc:aesgcm:v1:k1:"));

    // Another key writes, without a restart: the old one still reads, and the same object written again has the new one.
    first.replace(rules(&["k2", "k1"])).await.unwrap();
    let now = cluster.get(&path).await.json();
    assert_eq!(now["data"], secret["data"]);
    assert!(stored(&disk, key).await.starts_with("k8s:enc:aesgcm:v1:k1:"));
    assert_eq!(cluster.admin(Method::PUT, &path, now).await.code, StatusCode::OK);
    assert!(stored(&disk, key).await.starts_with("k8s:enc:aesgcm:v1:k2:"));
    assert!(first.replace(rules(&["k2"])).await.is_err(), "the gadget is still the old key's");
    drop(cluster);

    // And over a restart with the keys the other way round.
    let third = Cluster::over(Arc::new(SealedStore::new(disk.clone(), rules(&["k1", "k2"]))), |_, _| {}).await;
    let again = third.admin(Method::PATCH, &path, json!({"metadata": {"labels": {"a": "b"}}})).await.json();
    assert_eq!(again["data"], secret["data"]);
    assert!(stored(&disk, key).await.starts_with("k8s:enc:aesgcm:v1:k1:"));
}
