//! Which tokens sign, how, and how long tokens last.
//!
//! Sources: `pkg/controller/bootstrap` and `k8s.io/cluster-bootstrap` of Kubernetes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use pintle_clock::Timestamp;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Secret;
use ring::hmac;
use serde_json::json;
use std::collections::BTreeMap;

/// The key of the ConfigMap `cluster-info` that is signed.
pub const CONTENT: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or_default()
}

/// How long a token lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Forever,
    /// For so many seconds more.
    Seconds(u64),
    Over,
}

/// What a token's secret says of its end; what can't be read is over.
pub fn life(secret: &Secret, now: Timestamp) -> Life {
    match text(secret, "expiration") {
        "" => Life::Forever,
        at => match at.parse::<Timestamp>() {
            Ok(at) if at > now => {
                let left = at.duration_since(now);
                Life::Seconds(left.as_secs().unsigned_abs() + u64::from(left.subsec_nanos() > 0))
            }
            _ => Life::Over,
        },
    }
}

/// The id and the secret part of a token that signs.
pub fn signing(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let (id, key) = (text(secret, "token-id"), text(secret, "token-secret"));
    let named = secret.name().strip_prefix("bootstrap-token-") == Some(id) && !id.is_empty();
    let signs = text(secret, "usage-bootstrap-signing") == "true";
    (named && !key.is_empty() && signs && life(secret, now) != Life::Over).then_some((id, key))
}

/// A signature of `content` (RFC 7515, compact, the content left out), by HMAC with the token's secret part.
pub fn signature(content: &str, id: &str, key: &str) -> String {
    let header = BASE64.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", BASE64.encode(content));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes());
    format!("{header}..{}", BASE64.encode(tag.as_ref()))
}

/// The data of `cluster-info` with the signatures of these tokens and no others; nothing when that changes nothing.
pub fn sign(data: &BTreeMap<String, String>, tokens: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    let content = data.get(CONTENT)?;
    let mut wanted = data.clone();
    wanted.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    for (id, key) in tokens {
        wanted.insert(format!("{SIGNATURE_PREFIX}{id}"), signature(content, id, key));
    }
    (wanted != *data).then_some(wanted)
}
