//! What is stored is encrypted in upstream's form, what is read is plain, and keys can be changed.

use super::*;
use crate::EmbeddedStore;

const CONFIG: &str = r"
kind: EncryptionConfiguration
apiVersion: apiserver.config.k8s.io/v1
resources:
- resources: [secrets]
  providers:
  - PROVIDER
  - identity: {}
- resources: ['*.example.com']
  providers:
  - secretbox: {keys: [{name: box, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}
- resources: [widgets.example.com, '*.apps']
  providers: [{identity: {}}]
";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const KNOWN: [(&str, &str, &str); 3] = [
    ("", "secrets", "/registry/secrets"),
    ("", "configmaps", "/registry/configmaps"),
    ("example.com", "things", "/registry/example.com/things"),
];

fn rules(provider: &str) -> Vec<Rule> {
    Configuration::parse(&CONFIG.replace("PROVIDER", provider)).unwrap().rules(KNOWN)
}

async fn put(store: &dyn Store, key: &str, value: &str) {
    let op = Op::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        lease: 0,
    };
    store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
}

async fn get(store: &dyn Store, key: &str) -> Result<Bytes, StoreError> {
    let range = KeyRange::key(Bytes::copy_from_slice(key.as_bytes()));
    let found = store.range(RangeRequest { range, at: None, limit: 0 }).await?;
    Ok(found.kvs[0].value.clone())
}

#[tokio::test]
async fn every_provider_gives_back_what_it_is_given() {
    for kind in ["aescbc", "aesgcm", "secretbox"] {
        let inner = Arc::new(EmbeddedStore::in_memory().unwrap());
        let provider = format!("{kind}: {{keys: [{{name: k1, secret: {KEY}}}]}}");
        let store = SealedStore::new(inner.clone(), rules(&provider));
        let mut changes = store.watch(KeyRange::prefix("/registry/"), 0).await.unwrap();
        put(&store, "/registry/secrets/a/b", "hush").await;
        put(&store, "/registry/configmaps/a/b", "loud").await;
        assert_eq!(get(&store, "/registry/secrets/a/b").await.unwrap(), "hush");
        let raw = get(&*inner, "/registry/secrets/a/b").await.unwrap();
        assert!(raw.starts_with(format!("k8s:enc:{kind}:v1:k1:").as_bytes()), "{raw:?}");
        assert!(!raw.windows(4).any(|w| w == b"hush"));
        assert_eq!(get(&*inner, "/registry/configmaps/a/b").await.unwrap(), "loud");
        let Event::Put { kv, .. } = &changes.next().await.unwrap().unwrap().events[0] else { panic!("a put") };
        assert_eq!(kv.value, "hush");
        // What is moved to another key can't be read with a cipher that binds values to their keys.
        let op = Op::Put { key: "/registry/secrets/x".into(), value: raw, lease: 0 };
        inner.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
        assert_eq!(get(&store, "/registry/secrets/x").await.is_err(), kind == "aesgcm");
    }
}

#[tokio::test]
async fn keys_are_changed_while_old_ones_still_read() {
    let inner = Arc::new(EmbeddedStore::in_memory().unwrap());
    let plain = SealedStore::new(inner.clone(), Vec::new());
    put(&plain, "/registry/secrets/old", "one").await;
    let first = format!("aescbc: {{keys: [{{name: k1, secret: {KEY}}}]}}");
    let store = SealedStore::new(inner.clone(), rules(&first));
    assert_eq!(get(&store, "/registry/secrets/old").await.unwrap(), "one");
    assert!(store.is_stale(b"/registry/secrets/old"));
    put(&store, "/registry/secrets/old", "one").await;
    get(&store, "/registry/secrets/old").await.unwrap();
    assert!(!store.is_stale(b"/registry/secrets/old"));
    let second =
        format!("aescbc: {{keys: [{{name: k2, secret: QUJDREVGR0hJSktMTU5PUA==}}, {{name: k1, secret: {KEY}}}]}}");
    let store = SealedStore::new(inner.clone(), rules(&second));
    assert_eq!(get(&store, "/registry/secrets/old").await.unwrap(), "one");
    assert!(store.is_stale(b"/registry/secrets/old"));
    let without = "aescbc: {keys: [{name: k2, secret: QUJDREVGR0hJSktMTU5PUA==}]}";
    let store = SealedStore::new(inner, rules(without));
    assert!(get(&store, "/registry/secrets/old").await.unwrap_err().to_string().contains("/registry/secrets/old"));
}

#[test]
fn the_first_entry_that_names_a_resource_decides() {
    let rules = rules("identity: {}");
    let prefixes: Vec<&str> = rules.iter().map(|rule| rule.prefix.as_str()).collect();
    let all = [
        "/registry/apps/",
        "/registry/example.com/",
        "/registry/example.com/things/",
        "/registry/example.com/widgets/",
        "/registry/secrets/",
    ];
    assert_eq!(prefixes, all);
}

#[test]
fn wrong_configurations_are_refused() {
    let refused = |provider: &str| Configuration::parse(&CONFIG.replace("PROVIDER", provider)).unwrap_err().to_string();
    assert!(refused("kms: {name: x}").contains("kms is not supported"));
    assert!(refused("aescbc: {keys: []}").contains("needs a key"));
    assert!(refused("aescbc: {keys: [{name: a, secret: '%'}]}").contains("base64"));
    assert!(refused("secretbox: {keys: [{name: a, secret: QUJD}]}").contains("3 bytes"));
    assert!(refused("aescbc: {keys: [{name: 'a:b', secret: QUJD}]}").contains("colon"));
}

#[test]
fn secretbox_has_the_tag_before_the_text() {
    let provider = Provider::new("secretbox", "k", &[7; 32]).unwrap();
    let closed = provider.close(b"/p", Bytes::from_static(b"text")).unwrap();
    assert_eq!(closed.len(), "k8s:enc:secretbox:v1:k:".len() + 24 + 16 + 4);
    assert_eq!(provider.open(b"/p", closed).unwrap(), "text");
}

/// The first letters of what is stored, up to the name of the key that wrote it.
async fn writer(inner: &EmbeddedStore, key: &str) -> String {
    let raw = String::from_utf8_lossy(&get(inner, key).await.unwrap()).into_owned();
    raw.split(':').take(5).collect::<Vec<_>>().join(":")
}

#[tokio::test]
async fn a_changed_file_counts_within_a_minute_unless_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("encryption.yaml");
    let key = |name: &str| format!("{{name: {name}, secret: {KEY}}}");
    let text = |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|name| key(name)).collect();
        CONFIG.replace("PROVIDER", &format!("aescbc: {{keys: [{}]}}", keys.join(", ")))
    };
    let rules = |configuration: &Configuration| configuration.rules(KNOWN);
    let first = text(&["k1"]);
    std::fs::write(&file, &first).unwrap();
    let inner = Arc::new(EmbeddedStore::in_memory().unwrap());
    let store = Arc::new(SealedStore::new(inner.clone(), rules(&Configuration::parse(&first).unwrap())));
    let secret = "/registry/secrets/a";
    for n in 0..1200 {
        put(&*store, &format!("/registry/secrets/more/{n}"), "more").await;
    }
    put(&*store, secret, "hush").await;
    assert_eq!(writer(&inner, secret).await, "k8s:enc:aescbc:v1:k1");
    let following = tokio::spawn({
        let (store, file) = (store.clone(), file.clone());
        async move { store.follow(&file, first, rules).await }
    });
    tokio::time::pause();
    let minute = async || tokio::time::sleep(PERIOD + std::time::Duration::from_millis(1)).await;
    minute().await;
    put(&*store, secret, "hush").await;
    assert_eq!(writer(&inner, secret).await, "k8s:enc:aescbc:v1:k1", "nothing has changed");

    std::fs::write(&file, text(&["k2", "k1"])).unwrap();
    minute().await;
    while !store.is_stale(b"/registry/secrets/more/1199") {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&*store, secret).await.unwrap(), "hush");
    assert!(store.is_stale(secret.as_bytes()) && store.is_stale(b"/registry/secrets/more/0"));
    put(&*store, secret, "hush").await;
    get(&*store, secret).await.unwrap();
    assert_eq!(writer(&inner, secret).await, "k8s:enc:aescbc:v1:k2");
    assert!(!store.is_stale(secret.as_bytes()));

    for wrong in ["nonsense", &text(&["k3", "k2"]), &text(&["k2"]).replace("[secrets]", "[configmaps]")] {
        std::fs::write(&file, wrong).unwrap();
        minute().await;
        put(&*store, secret, "hush").await;
        assert_eq!(writer(&inner, secret).await, "k8s:enc:aescbc:v1:k2", "what can't read all that is there: {wrong}");
    }
    following.abort();
}
