//! Who may use the kubelet's API: administrators by certificate, others as the API server decides.

use super::{Refusal, reads, respond};
use http::{HeaderMap, Method, StatusCode, header};
use pintle_client::Client;
use pintle_pki::Peer;
use serde_json::{Value, json};

const ADMINISTRATORS: &str = "system:masters";

/// Asks the API server who a token belongs to, and who may do what.
pub struct Authorizer {
    client: Client,
    node_name: String,
}

struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: Value,
}

impl Authorizer {
    pub fn new(client: Client, node_name: String) -> Self {
        Self { client, node_name }
    }

    /// Lets a request pass, or answers it with 401 or 403.
    pub async fn check(
        &self,
        peer: Option<&Peer>,
        headers: &HeaderMap,
        method: &Method,
        subresource: &str,
    ) -> Result<(), Refusal> {
        let user = match peer {
            Some(peer) => Some(of_certificate(peer)),
            None => self.of_token(headers).await,
        };
        let Some(user) = user else { return Err(respond::refuse(StatusCode::UNAUTHORIZED, "Unauthorized")) };
        if user.groups.iter().any(|g| g == ADMINISTRATORS) {
            return Ok(());
        }
        let verb = match *method {
            _ if reads(method) => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            _ => "delete",
        };
        // Finer subresources were cut out of `proxy`, which still allows them.
        if self.is_allowed(&user, verb, subresource).await
            || (matches!(subresource, "healthz" | "pods" | "configz") && self.is_allowed(&user, verb, "proxy").await)
        {
            return Ok(());
        }
        let message =
            format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])", user.name);
        Err(respond::refuse(StatusCode::FORBIDDEN, message))
    }

    async fn of_token(&self, headers: &HeaderMap) -> Option<User> {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.trim();
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        });
        let answer = self.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await?;
        let status = &answer["status"];
        if status["authenticated"] != true {
            return None;
        }
        let user = &status["user"];
        let text = |name: &str| user[name].as_str().unwrap_or_default().to_owned();
        let groups = user["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
        let groups = groups.iter().filter_map(|g| g.as_str().map(str::to_owned)).collect();
        Some(User { name: text("username"), uid: text("uid"), groups, extra: user["extra"].clone() })
    }

    async fn is_allowed(&self, user: &User, verb: &str, subresource: &str) -> bool {
        let mut spec = json!({
            "user": user.name,
            "groups": user.groups,
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self.node_name,
            },
        });
        if !user.uid.is_empty() {
            spec["uid"] = user.uid.clone().into();
        }
        if !user.extra.is_null() {
            spec["extra"] = user.extra.clone();
        }
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let answer = self.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await;
        answer.is_some_and(|a| a["status"]["allowed"] == true)
    }

    /// Whoever can't be asked about is refused.
    async fn post(&self, path: &str, body: &Value) -> Option<Value> {
        let asked = self.client.json(Method::POST, path, Some(body)).await;
        asked.inspect_err(|error| tracing::warn!(%error, path, "a request to the kubelet can't be judged")).ok()
    }
}

fn of_certificate(peer: &Peer) -> User {
    User {
        name: peer.common_name.clone(),
        uid: String::new(),
        groups: peer.organizations.iter().cloned().chain(["system:authenticated".to_owned()]).collect(),
        extra: Value::Null,
    }
}
