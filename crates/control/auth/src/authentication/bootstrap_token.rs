//! Bootstrap tokens: secrets of `kube-system` by which nodes join.
//!
//! Source: `plugin/pkg/auth/authenticator/token/bootstrap` and `k8s.io/cluster-bootstrap` of Kubernetes.

use super::{Authenticated, Objects, Verdict, same, shared_audiences};
use crate::User;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// The id and the secret of a token (`abcdef.0123456789abcdef`); nothing when it is not of that form.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Whether this is a group that tokens may be in besides their own.
pub fn is_extra_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=256).contains(&rest.len())
        && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(plain)
}

/// The user of a token as its secret stands for it now.
pub async fn authenticate(
    objects: &dyn Objects,
    own_audiences: &[String],
    now: Timestamp,
    token: &str,
    audiences: &[String],
) -> Verdict {
    let Some((id, secret)) = split(token) else { return Ok(None) };
    let Some(object) = objects.get("secrets", NAMESPACE, &format!("bootstrap-token-{id}")).await else {
        return Ok(None);
    };
    let shared = shared_audiences(own_audiences, audiences);
    let user = user_of(&object, id, secret, now).filter(|_| !shared.is_empty());
    Ok(user.map(|user| Authenticated::new(user, shared)))
}

fn user_of(object: &Value, id: &str, secret: &str, now: Timestamp) -> Option<User> {
    let data = |key: &str| {
        let bytes = STANDARD.decode(object["data"][key].as_str().unwrap_or_default()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let is_token = object["type"] == TYPE && object["metadata"]["deletionTimestamp"].is_null();
    if !is_token || !same(data("token-secret").as_bytes(), secret.as_bytes()) || data("token-id") != id {
        return None;
    }
    let expiration = data("expiration");
    let expired = !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |at| at <= now);
    if expired || data("usage-bootstrap-authentication") != "true" {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in data("auth-extra-groups").split(',').filter(|g| !g.is_empty()) {
        if !is_extra_group(group) {
            return None;
        }
        if !groups.iter().any(|g| g == group) {
            groups.push(group.to_owned());
        }
    }
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() }.authenticated())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(change: impl FnOnce(&mut Value)) -> Option<User> {
        let data = |text: &str| STANDARD.encode(text);
        let mut object = json!({"type": TYPE, "metadata": {}, "data": {
            "token-id": data("abcdef"), "token-secret": data("0123456789abcdef"),
            "usage-bootstrap-authentication": data("true"), "expiration": data("2030-01-01T00:00:00Z"),
            "auth-extra-groups": data("system:bootstrappers:workers"),
        }});
        change(&mut object);
        user_of(&object, "abcdef", "0123456789abcdef", "2029-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_token_is_good_as_long_as_its_secret_says_so() {
        let user = secret(|_| {}).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, [GROUP, "system:bootstrappers:workers", "system:authenticated"]);
        let set = |key: &'static str, text: &'static str| {
            secret(move |object| object["data"][key] = STANDARD.encode(text).into())
        };
        assert!(set("expiration", "2028-01-01T00:00:00Z").is_none());
        assert!(set("expiration", "soon").is_none());
        assert!(set("usage-bootstrap-authentication", "false").is_none());
        assert!(set("auth-extra-groups", "system:masters").is_none());
        assert!(set("token-secret", "0123456789abcdee").is_none());
        assert!(secret(|object| object["type"] = "Opaque".into()).is_none());
        assert!(secret(|object| object["metadata"]["deletionTimestamp"] = "x".into()).is_none());
    }

    #[test]
    fn tokens_have_one_form() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for wrong in ["", "abcdef", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef0"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
