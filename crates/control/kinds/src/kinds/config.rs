//! Config maps, secrets and service accounts.

use super::workload;
use crate::{
    check::{Errors, IMMUTABLE, name},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;

/// All data of a config map or a secret together.
const MAX_BYTES: usize = 1024 * 1024;

pub struct ConfigMap;

static MAP_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Data",
        "string",
        "",
        0,
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or \
         '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must \
         not overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    column::AGE,
];

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let mut total = 0;
            for field in ["data", "binaryData"] {
                let path = Path::new(field);
                for (key, value) in tree::entries(object, field) {
                    errors.invalid_for(&path.key(key), key, name::config_key(key));
                    if field == "data" && object["binaryData"].get(key).is_some() {
                        errors.invalid(&path.key(key), key.as_str(), "duplicate of key present in binaryData");
                    }
                    total += size(value, field == "binaryData");
                }
            }
            if total > MAX_BYTES {
                errors.too_long(&Path::default(), MAX_BYTES);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = Errors::of(|errors| unchanged(errors, new, old, &["data", "binaryData"]));
        found.extend(self.validate(new));
        found
    }

    fn columns(&self) -> &[Column] {
        MAP_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |field: &str| object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len);
        vec![workload::name(object), (count("data") + count("binaryData")).into(), column::age(object, now)]
    }
}

fn size(value: &Value, encoded: bool) -> usize {
    let length = value.as_str().map_or(0, str::len);
    if encoded { length / 4 * 3 } else { length }
}

/// Data that was declared immutable stays, and so does the declaration.
fn unchanged(errors: &mut Errors, new: &Value, old: &Value, fields: &[&str]) {
    const WORDS: &str = "field is immutable when `immutable` is set";
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.forbidden(&Path::new("immutable"), WORDS);
    }
    for field in fields {
        if tree::at(new, field) != tree::at(old, field) {
            errors.forbidden(&Path::new(field), WORDS);
        }
    }
}

/// What Go's TLS library says of a certificate and key that are not PEM. Whether they belong together is not looked at.
fn key_pair_warning(secret: &Value) -> Option<String> {
    let decoded = |key: &str| STANDARD.decode(tree::text(&secret["data"], key)).unwrap_or_default();
    let blocks = |bytes: &[u8]| -> Vec<String> {
        let blocks = x509_parser::pem::Pem::iter_from_buffer(bytes).take(64).map_while(Result::ok);
        blocks.map(|block| block.label).collect()
    };
    let certificates = blocks(&decoded("tls.crt"));
    if !certificates.iter().any(|label| label == "CERTIFICATE") {
        return Some(match certificates.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".to_owned(),
            [one] if one.ends_with("PRIVATE KEY") => {
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs \
                 may have been switched"
                    .to_owned()
            }
            skipped => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
                 following types: [{}]",
                skipped.join(" ")
            ),
        });
    }
    let keys = blocks(&decoded("tls.key"));
    if keys.iter().any(|label| label.ends_with("PRIVATE KEY")) {
        return None;
    }
    Some(match keys.as_slice() {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        skipped => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of \
             the following types: [{}]",
            skipped.join(" ")
        ),
    })
}

pub struct Secret;

static SECRET_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Type",
        "string",
        "",
        0,
        "Used to facilitate programmatic handling of secret data. More info: \
         https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    Column::new(
        "Data",
        "string",
        "",
        0,
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The \
         serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly \
         non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    column::AGE,
];

impl Strategy for Secret {
    fn default(&self, _api_version: &str, object: &mut Value) {
        tree::default_empty(object, "type", "Opaque");
        // Text data is only a way to write; it is stored encoded.
        let texts = tree::remove(object, "stringData");
        if let Some(Value::Object(texts)) = texts
            && !texts.is_empty()
            && let Some(data) = tree::child(object, "data")
        {
            for (key, text) in texts {
                tree::set(data, &key, STANDARD.encode(text.as_str().unwrap_or("")));
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let data = Path::new("data");
            let mut total = 0;
            for (key, value) in tree::entries(object, "data") {
                errors.invalid_for(&data.key(key), key, name::config_key(key));
                total += size(value, true);
            }
            if total > MAX_BYTES {
                errors.too_long(&data, MAX_BYTES);
            }
            needs_of_type(errors, object);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = Errors::of(|errors| {
            if new["type"] != old["type"] {
                errors.invalid(&Path::new("type"), new["type"].clone(), IMMUTABLE);
            }
            unchanged(errors, new, old, &["data"]);
        });
        found.extend(self.validate(new));
        found
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        if new["type"] == "kubernetes.io/tls" { key_pair_warning(new).into_iter().collect() } else { Vec::new() }
    }

    fn columns(&self) -> &[Column] {
        SECRET_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = object.get("data").and_then(Value::as_object).map_or(0, serde_json::Map::len);
        vec![workload::name(object), tree::text(object, "type").into(), count.into(), column::age(object, now)]
    }
}

/// The keys that a type of secret needs.
fn needs_of_type(errors: &mut Errors, object: &Value) {
    let data = Path::new("data");
    let has = |key: &str| object["data"].get(key).is_some();
    match tree::text(object, "type") {
        "kubernetes.io/service-account-token" => {
            const ACCOUNT: &str = "kubernetes.io/service-account.name";
            if tree::text(&object["metadata"]["annotations"], ACCOUNT).is_empty() {
                errors.required(&Path::new("metadata.annotations").key(ACCOUNT), "");
            }
        }
        "kubernetes.io/dockercfg" => json_key(errors, object, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_key(errors, object, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(&data.key("username"), "");
            errors.required(&data.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if tree::is_empty(&object["data"]["ssh-privatekey"]) => {
            errors.required(&data.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                errors.required(&data.key(key), "");
            }
        }
        _ => {}
    }
}

fn json_key(errors: &mut Errors, object: &Value, key: &str) {
    let path = Path::new("data").key(key);
    let Some(encoded) = object["data"].get(key).and_then(Value::as_str) else {
        return errors.required(&path, "");
    };
    let parsed = STANDARD.decode(encoded).ok().map(|bytes| serde_json::from_slice::<Value>(&bytes));
    if let Some(Err(why)) = parsed {
        errors.invalid(&path, "<secret contents redacted>", &why.to_string());
    }
}

pub struct ServiceAccount;

static ACCOUNT_COLUMNS: &[Column] = &[column::NAME, column::AGE];

impl Strategy for ServiceAccount {
    fn columns(&self) -> &[Column] {
        ACCOUNT_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![workload::name(object), column::age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_of_secrets_are_encoded() {
        let mut secret = json!({"stringData": {"a": "b"}, "data": {"a": "x", "c": "ZA=="}});
        Secret.default("v1", &mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg==", "c": "ZA=="}}));
    }

    #[test]
    fn secrets_need_the_keys_of_their_type() {
        for (kind, expected) in [
            ("Opaque", vec![]),
            ("kubernetes.io/tls", vec!["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
            ("kubernetes.io/ssh-auth", vec!["data[ssh-privatekey]: Required value"]),
            ("kubernetes.io/dockerconfigjson", vec!["data[.dockerconfigjson]: Required value"]),
        ] {
            let found: Vec<_> = Secret.validate(&json!({"type": kind})).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{kind}");
        }
    }

    #[test]
    fn immutable_maps_stay() {
        let old = json!({"immutable": true, "data": {"a": "b"}});
        assert!(ConfigMap.validate_update(&old, &old).is_empty());
        let found: Vec<_> =
            ConfigMap.validate_update(&json!({"data": {"a": "c"}}), &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }

    #[test]
    fn key_pairs_that_are_none() {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let (certificate, key) = (pem("CERTIFICATE"), pem("RSA PRIVATE KEY"));
        for (crt, key, expected) in [
            ("x", "x", Some("tls: failed to find any PEM data in certificate input")),
            (
                &*key,
                "x",
                Some(
                    "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM \
                     inputs may have been switched",
                ),
            ),
            (&*certificate, "x", Some("tls: failed to find any PEM data in key input")),
            (
                &*certificate,
                &*certificate,
                Some("tls: found a certificate rather than a key in the PEM for the private key"),
            ),
            (&*certificate, &*key, None),
        ] {
            let data = serde_json::json!({"tls.crt": STANDARD.encode(crt), "tls.key": STANDARD.encode(key)});
            let secret = serde_json::json!({"type": "kubernetes.io/tls", "data": data});
            assert_eq!(Secret.warnings(&secret, None), Vec::from_iter(expected.map(str::to_owned)), "{crt} {key}");
        }
    }
}
