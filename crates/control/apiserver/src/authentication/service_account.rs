//! Service account tokens: who they stand for, as long as what they are bound to is there.
//!
//! Source: `pkg/serviceaccount/claims.go` of Kubernetes.

use crate::server::Server;
use pintle_auth::User;
use pintle_auth::authentication::jwt;
use pintle_registry::GetOptions;
use serde_json::{Value, json};

/// Clocks may differ by this much.
const LEEWAY_SECONDS: i64 = 10;

/// What a token is asked for.
pub(crate) struct Order<'a> {
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

/// A signed token.
pub(crate) fn issue(server: &Server, order: &Order<'_>) -> Result<String, pintle_pki::Error> {
    let name = order.account["metadata"]["name"].as_str().unwrap_or_default();
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
        "iss": server.config.issuer,
        "aud": order.audiences,
        "sub": format!("system:serviceaccount:{}:{name}", order.namespace),
        "iat": order.issued_at,
        "nbf": order.issued_at,
        "exp": order.expires_at,
        "jti": uuid::Uuid::new_v4().to_string(),
        "kubernetes.io": private,
    });
    jwt::sign(&server.config.token_key, &claims)
}

/// The user of a token; nothing when it is not ours, has run out, is for somebody else, or what it is bound to is gone.
pub(crate) async fn user_of(server: &Server, token: &str, audiences: &[String]) -> Option<User> {
    let claims = jwt::verify(server.config.token_key.public(), token)?;
    let now = server.clock.now().as_second();
    let in_time = claims["exp"].as_i64()? + LEEWAY_SECONDS > now && claims["nbf"].as_i64()? - LEEWAY_SECONDS <= now;
    if claims["iss"] != server.config.issuer.as_str() || !in_time || !is_for(server, &claims["aud"], audiences) {
        return None;
    }
    let private = &claims["kubernetes.io"];
    let namespace = private["namespace"].as_str()?;
    let name = private["serviceaccount"]["name"].as_str()?;
    if claims["sub"] != format!("system:serviceaccount:{namespace}:{name}") {
        return None;
    }
    still_there(server, "serviceaccounts", namespace, &private["serviceaccount"]).await?;
    for (kind, resource) in [("pod", "pods"), ("secret", "secrets")] {
        if private[kind].is_object() {
            still_there(server, resource, namespace, &private[kind]).await?;
        }
    }
    // A token bound to a node alone ends with the node; a pod's token ends with the pod, whatever becomes of the node.
    if private["node"].is_object() && !private["pod"].is_object() {
        still_there(server, "nodes", "", &private["node"]).await?;
    }
    Some(user(namespace, name, &claims))
}

fn is_for(server: &Server, tokens: &Value, wanted: &[String]) -> bool {
    let Some(tokens) = tokens.as_array() else { return false };
    let has = |audience: &str| tokens.iter().any(|t| t == audience);
    if wanted.is_empty() { has(&server.config.issuer) } else { wanted.iter().any(|w| has(w)) }
}

/// Whether the object exists, is the same as when the token was made, and is not long due to be deleted.
async fn still_there(server: &Server, resource: &str, namespace: &str, reference: &Value) -> Option<()> {
    let table = server.registry.table();
    let def = table.get("", "v1", resource)?;
    let name = reference["name"].as_str()?;
    let object = server.registry.get(def, namespace, name, &GetOptions::default()).await.ok()?.to_value();
    (object["metadata"]["uid"] == reference["uid"]).then_some(())
}

fn user(namespace: &str, name: &str, claims: &Value) -> User {
    let mut user = User::service_account(namespace, name);
    let private = &claims["kubernetes.io"];
    user.uid = private["serviceaccount"]["uid"].as_str().unwrap_or_default().to_owned();
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
