//! Asks another server whether somebody may, by a `SubjectAccessReview`.
//!
//! Source: apiserver's `plugin/pkg/authorizer/webhook`.

use super::{Attributes, Decision, Requirement};
use crate::User;
use crate::cache::Expiring;
use crate::cel::Expression;
use crate::outbound::Endpoint;
use serde_json::{Value, json};
use std::time::Duration;

/// Longer questions are asked anew each time, so that nobody fills the cache with them.
const MAX_CACHED_BYTES: usize = 10_000;

/// The settings of a webhook.
#[derive(Debug)]
pub struct Webhook {
    pub(crate) endpoint: Endpoint,
    /// `v1` or `v1beta1`.
    pub(crate) version: String,
    pub(crate) authorized_ttl: Duration,
    pub(crate) unauthorized_ttl: Duration,
    /// Whether a failure refuses for good instead of leaving the answer to the next authorizer.
    pub(crate) deny_on_failure: bool,
    pub(crate) conditions: Vec<Expression>,
    pub(crate) answers: Expiring<Decision>,
}

impl Webhook {
    pub(crate) fn new(endpoint: Endpoint, version: &str) -> Self {
        Self {
            endpoint,
            version: version.to_owned(),
            authorized_ttl: Duration::from_secs(300),
            unauthorized_ttl: Duration::from_secs(30),
            deny_on_failure: false,
            conditions: Vec::new(),
            answers: Expiring::default(),
        }
    }

    pub async fn decide(&self, user: &User, what: &Attributes<'_>) -> Decision {
        let spec = spec(user, what);
        match self.matches(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::default(),
            Err(error) => return self.failed(error),
        }
        let question = spec.to_string();
        if let Some(known) = self.answers.get(question.as_bytes()) {
            return known;
        }
        let decision = match self.ask(spec).await {
            Ok(decision) => decision,
            Err(error) => return self.failed(error),
        };
        if question.len() < MAX_CACHED_BYTES {
            let ttl = if decision.allowed { self.authorized_ttl } else { self.unauthorized_ttl };
            self.answers.put(question.as_bytes(), decision.clone(), ttl);
        }
        decision
    }

    fn failed(&self, error: String) -> Decision {
        tracing::warn!(endpoint = ?self.endpoint, error, "an authorization webhook gave no answer");
        Decision { denied: self.deny_on_failure, error, ..Decision::default() }
    }

    /// Whether all conditions hold. One that fails counts only when none says no.
    fn matches(&self, spec: &Value) -> Result<bool, String> {
        let mut failed = None;
        for condition in &self.conditions {
            match condition.holds("request", spec) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => failed = Some(format!("expression {:?} resulted in error: {error}", condition.text)),
            }
        }
        failed.map_or(Ok(true), Err)
    }

    async fn ask(&self, mut spec: Value) -> Result<Decision, String> {
        if self.version == "v1beta1"
            && let Some(fields) = spec.as_object_mut()
            && let Some(groups) = fields.remove("groups")
        {
            fields.insert("group".into(), groups);
        }
        let review = json!({
            "apiVersion": format!("authorization.k8s.io/{}", self.version),
            "kind": "SubjectAccessReview",
            "metadata": {"creationTimestamp": null},
            "spec": spec,
            "status": {"allowed": false},
        });
        let answer = self.endpoint.post(review.to_string()).await.map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|e| format!("the webhook's answer: {e}"))?;
        let status = &answer["status"];
        let (Some(allowed), denied) = (status["allowed"].as_bool(), status["denied"] == true) else {
            return Err("the webhook's answer has no status.allowed".into());
        };
        if allowed && denied {
            return Err("webhook subject access review returned both allow and deny response".into());
        }
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        Ok(Decision { allowed, denied, reason: text("reason"), error: text("evaluationError") })
    }
}

fn requirements(list: &[Requirement]) -> Value {
    let items = list.iter().map(|r| match r.values.as_slice() {
        [] => json!({"key": r.key, "operator": r.operator}),
        values => json!({"key": r.key, "operator": r.operator, "values": values}),
    });
    json!({"requirements": items.collect::<Vec<_>>()})
}

/// The question as the spec of a review.
fn spec(user: &User, what: &Attributes<'_>) -> Value {
    let mut spec = json!({"user": user.name});
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        spec["groups"] = user.groups.clone().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    if let Some(path) = what.path {
        spec["nonResourceAttributes"] = json!({"path": path, "verb": what.verb});
        return spec;
    }
    let mut resource = serde_json::Map::new();
    for (field, value) in [
        ("namespace", what.namespace),
        ("verb", what.verb),
        ("group", what.group),
        ("version", what.version),
        ("resource", what.resource),
        ("subresource", what.subresource),
        ("name", what.name),
    ] {
        if !value.is_empty() {
            resource.insert(field.into(), value.into());
        }
    }
    for (field, list) in [("fieldSelector", what.fields), ("labelSelector", what.labels)] {
        if !list.is_empty() {
            resource.insert(field.into(), requirements(list));
        }
    }
    spec["resourceAttributes"] = resource.into();
    spec
}
