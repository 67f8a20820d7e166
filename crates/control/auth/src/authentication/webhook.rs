//! Asks another server who a token stands for, by a `TokenReview`.
//!
//! Source: apiserver's `plugin/pkg/authenticator/token/webhook`.

use super::{Authenticated, Verdict, shared_audiences};
use crate::User;
use crate::cache::Expiring;
use crate::configuration::ConfigurationError;
use crate::outbound::Endpoint;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A webhook that knows tokens.
#[derive(Debug)]
pub struct TokenWebhook {
    endpoint: Endpoint,
    version: String,
    ttl: Duration,
    answers: Expiring<Option<Authenticated>>,
}

impl TokenWebhook {
    /// `version` is `v1` or `v1beta1`; answers, good and bad, count for `ttl`.
    pub fn new(kubeconfig: &Path, version: &str, ttl: Duration) -> Result<Self, ConfigurationError> {
        if !matches!(version, "v1" | "v1beta1") {
            let why = format!("unsupported webhook authenticator version {version:?}; v1 and v1beta1 are");
            return Err(ConfigurationError::Invalid { what: "--authentication-token-webhook-version".into(), why });
        }
        let endpoint = Endpoint::of_kubeconfig(kubeconfig, TIMEOUT)?;
        Ok(Self { endpoint, version: version.to_owned(), ttl, answers: Expiring::default() })
    }

    pub async fn authenticate(&self, own_audiences: &[String], token: &str, audiences: &[String]) -> Verdict {
        let wanted = if audiences.is_empty() { own_audiences } else { audiences };
        let key = json!([token, wanted]).to_string();
        if let Some(known) = self.answers.get(key.as_bytes()) {
            return Ok(known);
        }
        let verdict = self.ask(token, wanted).await?;
        self.answers.put(key.as_bytes(), verdict.clone(), self.ttl);
        Ok(verdict)
    }

    async fn ask(&self, token: &str, wanted: &[String]) -> Verdict {
        let review = json!({
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "kind": "TokenReview",
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": wanted},
            "status": {"user": {}},
        });
        let answer = self.endpoint.post(review.to_string()).await.map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|e| format!("the webhook's answer: {e}"))?;
        verdict(&answer["status"], wanted)
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn verdict(status: &Value, wanted: &[String]) -> Verdict {
    if status["authenticated"] != true {
        let error = status["error"].as_str().unwrap_or_default();
        return if error.is_empty() { Ok(None) } else { Err(error.to_owned()) };
    }
    // A webhook that knows nothing of audiences speaks for this server's own.
    let known = texts(&status["audiences"]);
    let shared = if known.is_empty() { wanted.to_vec() } else { shared_audiences(&known, wanted) };
    if shared.is_empty() && !wanted.is_empty() {
        return Ok(None);
    }
    let user = &status["user"];
    let text = |field: &str| user[field].as_str().unwrap_or_default().to_owned();
    let extra = user["extra"].as_object().into_iter().flatten();
    let user = User {
        name: text("username"),
        uid: text("uid"),
        groups: texts(&user["groups"]),
        extra: extra.map(|(key, value)| (key.clone(), texts(value))).collect(),
    };
    Ok(Some(Authenticated::new(user.authenticated(), shared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_for_the_audiences_that_they_name() {
        let wanted = ["a".to_owned()];
        let status = json!({"authenticated": true, "user": {"username": "jane", "groups": ["dev"]}});
        let jane = verdict(&status, &wanted).unwrap().unwrap();
        assert_eq!((jane.user.name.as_str(), jane.audiences), ("jane", vec!["a".to_owned()]));
        assert_eq!(jane.user.groups, ["dev", "system:authenticated"]);
        let mut other = status.clone();
        other["audiences"] = json!(["b"]);
        assert_eq!(verdict(&other, &wanted), Ok(None));
        assert_eq!(verdict(&json!({"error": "no"}), &wanted), Err("no".into()));
        assert_eq!(verdict(&json!({}), &wanted), Ok(None));
    }
}
