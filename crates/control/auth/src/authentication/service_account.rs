//! Service account tokens: who they stand for, as long as what they are bound to is there.
//!
//! Source: `pkg/serviceaccount/{jwt,claims,legacy}.go` of Kubernetes.

use super::jwt::{self, Parsed};
use super::keys::{KeyError, KeyRing};
use super::{Authenticated, Objects, Verdict, same, shared_audiences};
use crate::User;
use crate::cache::Expiring;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Clocks may differ by this much.
const LEEWAY_SECONDS: i64 = 10;
/// What is being deleted counts for so long.
const DELETION_LEEWAY_SECONDS: i64 = 60;
/// The issuer of the tokens that secrets keep.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// The type of secrets that hold the token of an account.
pub const SECRET_TYPE: &str = "kubernetes.io/service-account-token";

/// Makes and checks the tokens of this cluster's service accounts.
#[derive(Debug)]
pub struct ServiceAccounts {
    pub keys: KeyRing,
    /// The first issues; tokens of all are accepted.
    pub issuers: Vec<String>,
    /// Who tokens are for when nobody says, and who this server is.
    pub audiences: Vec<String>,
    /// Whether pods' tokens work a year for clients too old to read them again.
    pub extend_expiration: bool,
    /// The longest time that a token may ask for; nothing is no bound of its own.
    pub max_seconds: Option<i64>,
    /// The claims of tokens whose signature was found good a moment ago: checking it costs more than all the rest.
    verified: Expiring<Arc<Value>>,
}

/// How long a signature is not checked again. The keys stay the same, so this is about memory only.
const VERIFIED_TTL: Duration = Duration::from_secs(60);

/// What a token is asked for.
#[derive(Debug)]
pub struct Order<'a> {
    pub namespace: &'a str,
    pub account: &'a Value,
    /// `pod`, `secret` or `node`, with the object.
    pub bound: Option<(&'static str, &'a Value)>,
    /// The node of the pod that the token is bound to.
    pub node: Option<&'a Value>,
    pub audiences: &'a [String],
    pub issued_at: i64,
    pub expires_at: i64,
    /// When a client that still uses the token should have renewed it.
    pub warn_after: Option<i64>,
}

fn reference(object: &Value) -> Value {
    json!({"name": object["metadata"]["name"], "uid": object["metadata"]["uid"]})
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl ServiceAccounts {
    /// Accounts whose tokens are for these audiences, by default for the first issuer.
    pub fn new(keys: KeyRing, issuers: Vec<String>, audiences: Vec<String>) -> Self {
        let audiences = if audiences.is_empty() { issuers.iter().take(1).cloned().collect() } else { audiences };
        Self { keys, issuers, audiences, extend_expiration: true, max_seconds: None, verified: Expiring::default() }
    }

    /// The issuer of new tokens.
    pub fn issuer(&self) -> &str {
        self.issuers.first().map(String::as_str).unwrap_or_default()
    }

    /// A signed token.
    pub fn issue(&self, order: &Order<'_>) -> Result<String, KeyError> {
        let name = text(&order.account["metadata"]["name"]);
        let mut private = json!({"namespace": order.namespace, "serviceaccount": reference(order.account)});
        if let Some((kind, object)) = order.bound {
            private[kind] = reference(object);
        }
        if let Some(node) = order.node {
            private["node"] = reference(node);
        }
        if let Some(at) = order.warn_after {
            private["warnafter"] = at.into();
        }
        let claims = json!({
            "iss": self.issuer(),
            "aud": order.audiences,
            "sub": format!("system:serviceaccount:{}:{name}", order.namespace),
            "iat": order.issued_at,
            "nbf": order.issued_at,
            "exp": order.expires_at,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": private,
        });
        jwt::sign(self.keys.signer(), &claims)
    }

    /// The token that a secret of type [`SECRET_TYPE`] keeps; it never runs out.
    pub fn issue_legacy(&self, account: &Value, secret: &Value) -> Result<String, KeyError> {
        let namespace = text(&account["metadata"]["namespace"]);
        let name = text(&account["metadata"]["name"]);
        let claims = json!({
            "iss": LEGACY_ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret["metadata"]["name"],
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"],
        });
        jwt::sign(self.keys.signer(), &claims)
    }

    /// The user of a token; nothing when somebody else issued it.
    pub async fn authenticate(
        &self,
        objects: &dyn Objects,
        now: Timestamp,
        token: &str,
        audiences: &[String],
    ) -> Verdict {
        let Some(parsed) = Parsed::new(token) else { return Ok(None) };
        let issuer = parsed.claimed_issuer();
        let legacy = issuer == LEGACY_ISSUER;
        if !legacy && !self.issuers.iter().any(|known| known == issuer) {
            return Ok(None);
        }
        let claims = self.verified(parsed, token).ok_or("the token is not signed by a key of this cluster")?;
        let token_audiences: Vec<String> = match jwt::audiences(&claims).as_slice() {
            [] if legacy => self.audiences.clone(),
            some => some.iter().map(|a| (*a).to_owned()).collect(),
        };
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let shared = shared_audiences(&token_audiences, wanted);
        if shared.is_empty() {
            return Err(format!("token audiences {token_audiences:?} is invalid for the target audiences {wanted:?}"));
        }
        let user = if legacy {
            legacy_user(objects, now, token, &claims).await?
        } else {
            bound_user(objects, now, &claims).await?
        };
        Ok(Some(Authenticated { annotations: stale(&claims, now), ..Authenticated::new(user, shared) }))
    }

    /// The claims of a token that one of the keys signed.
    fn verified(&self, parsed: Parsed<'_>, token: &str) -> Option<Arc<Value>> {
        if let Some(claims) = self.verified.get(token.as_bytes()) {
            return Some(claims);
        }
        let claims = Arc::new(parsed.verified(self.keys.verifiers(), &self.keys.algorithms())?);
        self.verified.put(token.as_bytes(), claims.clone(), VERIFIED_TTL);
        Some(claims)
    }
}

/// What the audit log says of a token that should have been renewed.
fn stale(claims: &Value, now: Timestamp) -> Vec<(String, String)> {
    let Some(after) = jwt::seconds(&claims["kubernetes.io"]["warnafter"]) else { return Vec::new() };
    let late = now.as_second() - after;
    if late <= 0 {
        return Vec::new();
    }
    let value = format!("subject: {}, seconds after warning threshold: {late}", text(&claims["sub"]));
    vec![("authentication.k8s.io/stale-token".into(), value)]
}

async fn bound_user(objects: &dyn Objects, now: Timestamp, claims: &Value) -> Result<User, String> {
    let second = now.as_second();
    let time = |claim: &str| jwt::seconds(&claims[claim]);
    if time("exp").is_none_or(|at| at + LEEWAY_SECONDS <= second) {
        return Err("service account token has expired".into());
    }
    if ["nbf", "iat"].iter().any(|claim| time(claim).is_some_and(|at| at - LEEWAY_SECONDS > second)) {
        return Err("service account token is not valid yet".into());
    }
    let private = &claims["kubernetes.io"];
    let (namespace, name) = (text(&private["namespace"]), text(&private["serviceaccount"]["name"]));
    if namespace.is_empty() || claims["sub"] != format!("system:serviceaccount:{namespace}:{name}") {
        return Err("service account token claims could not be validated".into());
    }
    still_there(objects, now, "serviceaccounts", namespace, &private["serviceaccount"]).await?;
    for (kind, resource) in [("pod", "pods"), ("secret", "secrets")] {
        if private[kind].is_object() {
            still_there(objects, now, resource, namespace, &private[kind]).await?;
        }
    }
    // A token bound to a node alone ends with the node; a pod's token ends with the pod, whatever becomes of the node.
    if private["node"].is_object() && !private["pod"].is_object() {
        still_there(objects, now, "nodes", "", &private["node"]).await?;
    }
    Ok(user(namespace, name, claims))
}

/// Whether the object exists, is the same as when the token was made, and is not long due to be deleted.
async fn still_there(
    objects: &dyn Objects,
    now: Timestamp,
    resource: &str,
    namespace: &str,
    reference: &Value,
) -> Result<(), String> {
    let invalidated = || "service account token has been invalidated".to_owned();
    let object = objects.get(resource, namespace, text(&reference["name"])).await.ok_or_else(invalidated)?;
    if is_going(&object, now) {
        return Err(invalidated());
    }
    let (uid, claim) = (text(&object["metadata"]["uid"]), text(&reference["uid"]));
    if uid == claim {
        return Ok(());
    }
    let what = match resource {
        "serviceaccounts" => "service account",
        other => other.trim_end_matches('s'),
    };
    Err(format!("{what} UID ({uid}) does not match claim ({claim})"))
}

fn is_going(object: &Value, now: Timestamp) -> bool {
    let at = object["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    at.is_some_and(|at| at.as_second() + DELETION_LEEWAY_SECONDS < now.as_second())
}

async fn legacy_user(objects: &dyn Objects, now: Timestamp, token: &str, claims: &Value) -> Result<User, String> {
    let claim = |name: &str| text(&claims[format!("kubernetes.io/serviceaccount/{name}")]).to_owned();
    let (namespace, secret_name) = (claim("namespace"), claim("secret.name"));
    let (name, uid) = (claim("service-account.name"), claim("service-account.uid"));
    if [&namespace, &secret_name, &name, &uid].iter().any(|c| c.is_empty()) {
        return Err("a claim of the token is empty".into());
    }
    if claims["sub"] != format!("system:serviceaccount:{namespace}:{name}") {
        return Err("sub claim is invalid".into());
    }
    let invalidated = || "token has been invalidated".to_owned();
    let secret = objects.get("secrets", &namespace, &secret_name).await.ok_or_else(invalidated)?;
    let kept = STANDARD.decode(text(&secret["data"]["token"])).unwrap_or_default();
    if is_going(&secret, now) || !secret["metadata"]["labels"][INVALID_SINCE].is_null() {
        return Err(invalidated());
    }
    if !same(&kept, token.as_bytes()) {
        return Err("token does not match server's copy".into());
    }
    let account = json!({"name": name, "uid": uid});
    still_there(objects, now, "serviceaccounts", &namespace, &account).await?;
    let today = now.to_string();
    let today = today.split('T').next().unwrap_or_default();
    if secret["metadata"]["labels"][LAST_USED] != today {
        objects.label_secret(&namespace, &secret_name, LAST_USED, today).await;
    }
    let mut user = User::service_account(&namespace, &name);
    user.uid = uid;
    Ok(user)
}

fn user(namespace: &str, name: &str, claims: &Value) -> User {
    let mut user = User::service_account(namespace, name);
    let private = &claims["kubernetes.io"];
    user.uid = text(&private["serviceaccount"]["uid"]).to_owned();
    let mut add = |key: &str, value: &Value| {
        if let Some(text) = value.as_str() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![text.to_owned()]);
        }
    };
    for kind in ["pod", "node"] {
        add(&format!("{kind}-name"), &private[kind]["name"]);
        add(&format!("{kind}-uid"), &private[kind]["uid"]);
    }
    if let Some(id) = claims["jti"].as_str() {
        add("credential-id", &format!("JTI={id}").into());
    }
    user
}
