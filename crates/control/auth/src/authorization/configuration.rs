//! The chain of authorizers from an `AuthorizationConfiguration` file or from the classic flags.
//!
//! Source: apiserver's `pkg/apis/apiserver` (v1, v1beta1) and its validation.

use super::Mode;
use super::webhook::Webhook;
use crate::cel::Expression;
use crate::configuration::{ConfigurationError, duration, read_file};
use crate::outbound::Endpoint;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the flags `--authorization-*` say.
#[derive(Clone, Debug, Default)]
pub struct AuthorizationSettings {
    /// `--authorization-config`; excludes the others.
    pub file: Option<PathBuf>,
    /// `--authorization-mode`, in order; empty is `Node,RBAC`.
    pub modes: Vec<String>,
    /// `--authorization-webhook-config-file`.
    pub webhook_kubeconfig: Option<PathBuf>,
    /// `--authorization-webhook-version`; empty is `v1beta1`, as upstream's.
    pub webhook_version: String,
    /// `--authorization-webhook-cache-authorized-ttl`.
    pub webhook_authorized_ttl: Option<Duration>,
    /// `--authorization-webhook-cache-unauthorized-ttl`.
    pub webhook_unauthorized_ttl: Option<Duration>,
}

const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_MATCH_CONDITIONS: usize = 64;

impl AuthorizationSettings {
    /// The modes in the order in which they are asked.
    pub fn modes(&self) -> Result<Vec<Mode>, ConfigurationError> {
        match &self.file {
            Some(_) if !self.modes.is_empty() || self.webhook_kubeconfig.is_some() => {
                Err(ConfigurationError::Invalid {
                    what: "--authorization-config".into(),
                    why: "can not be specified when --authorization-mode or --authorization-webhook-* flags are set"
                        .into(),
                })
            }
            Some(path) => from_file(path),
            None => self.of_flags(),
        }
    }

    fn of_flags(&self) -> Result<Vec<Mode>, ConfigurationError> {
        let invalid = |why: String| ConfigurationError::Invalid { what: "--authorization-mode".into(), why };
        if self.modes.is_empty() {
            return Ok(vec![Mode::Node, Mode::Rbac]);
        }
        let mut seen = HashSet::new();
        let mut modes = Vec::new();
        for mode in &self.modes {
            if !seen.insert(mode) {
                return Err(invalid(format!("authorization-mode {:?} has mode specified more than once", self.modes)));
            }
            modes.push(match mode.as_str() {
                "AlwaysAllow" => Mode::AlwaysAllow,
                "AlwaysDeny" => Mode::AlwaysDeny,
                "Node" => Mode::Node,
                "RBAC" => Mode::Rbac,
                "Webhook" => Mode::Webhook(Box::new(self.webhook()?)),
                other => return Err(invalid(format!("authorization-mode {other:?} is not a valid mode"))),
            });
        }
        if self.webhook_kubeconfig.is_some() && !self.modes.iter().any(|m| m == "Webhook") {
            return Err(invalid("cannot specify --authorization-webhook-config-file without mode Webhook".into()));
        }
        Ok(modes)
    }

    fn webhook(&self) -> Result<Webhook, ConfigurationError> {
        let path = self.webhook_kubeconfig.as_deref().ok_or_else(|| ConfigurationError::Invalid {
            what: "--authorization-mode".into(),
            why: "authorization-mode Webhook's authorization config file not passed".into(),
        })?;
        let version = if self.webhook_version.is_empty() { "v1beta1" } else { &self.webhook_version };
        let mut webhook = Webhook::new(Endpoint::of_kubeconfig(path, WEBHOOK_TIMEOUT)?, version);
        webhook.authorized_ttl = self.webhook_authorized_ttl.unwrap_or(webhook.authorized_ttl);
        webhook.unauthorized_ttl = self.webhook_unauthorized_ttl.unwrap_or(webhook.unauthorized_ttl);
        Ok(webhook)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    webhook: Option<WebhookEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookEntry {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    #[serde(default = "yes")]
    cache_authorized_requests: bool,
    #[serde(default = "yes")]
    cache_unauthorized_requests: bool,
    timeout: String,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: Option<String>,
    failure_policy: String,
    connection_info: ConnectionInfo,
    #[serde(default)]
    match_conditions: Vec<Condition>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionInfo {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    expression: String,
}

fn from_file(path: &Path) -> Result<Vec<Mode>, ConfigurationError> {
    let text = read_file(path)?;
    let versions = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
    let file: File = crate::configuration::parse(path, &text, "AuthorizationConfiguration", &versions)?;
    let invalid =
        |at: String, why: String| ConfigurationError::Invalid { what: format!("{}: {at}", path.display()), why };
    if file.authorizers.is_empty() {
        return Err(invalid(
            "authorizers".into(),
            "Required value: at least one authorization mode must be defined".into(),
        ));
    }
    let (mut names, mut kinds) = (HashSet::new(), HashSet::new());
    let mut modes = Vec::new();
    for (at, entry) in file.authorizers.iter().enumerate() {
        let field = format!("authorizers[{at}]");
        if !names.insert(entry.name.as_str()) {
            return Err(invalid(format!("{field}.name"), format!("Duplicate value: {:?}", entry.name)));
        }
        if entry.kind != "Webhook" && !kinds.insert(entry.kind.as_str()) {
            return Err(invalid(format!("{field}.type"), format!("Duplicate value: {:?}", entry.kind)));
        }
        let mode = match (entry.kind.as_str(), &entry.webhook) {
            ("Webhook", Some(webhook)) => {
                let made = webhook_of(webhook).map_err(|(at, why)| invalid(format!("{field}.webhook{at}"), why))?;
                Mode::Webhook(Box::new(made))
            }
            ("Webhook", None) => {
                let why = "Required value: required when type=Webhook".to_owned();
                return Err(invalid(format!("{field}.webhook"), why));
            }
            (_, Some(_)) => {
                let why = "Invalid value: \"non-null\": may only be specified when type=Webhook".to_owned();
                return Err(invalid(format!("{field}.webhook"), why));
            }
            ("AlwaysAllow", None) => Mode::AlwaysAllow,
            ("AlwaysDeny", None) => Mode::AlwaysDeny,
            ("Node", None) => Mode::Node,
            ("RBAC", None) => Mode::Rbac,
            (other, None) => {
                let known = "\"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"";
                let why = format!("Unsupported value: {other:?}: supported values: {known}");
                return Err(invalid(format!("{field}.type"), why));
            }
        };
        modes.push(mode);
    }
    Ok(modes)
}

type At<T> = Result<T, (String, String)>;

fn webhook_of(entry: &WebhookEntry) -> At<Webhook> {
    let wrong = |field: &str, why: &str| Err((format!(".{field}"), why.to_owned()));
    let time = |field: &str, text: &str| duration(text).map_err(|why| (format!(".{field}"), why));
    let timeout = time("timeout", &entry.timeout)?;
    if timeout.is_zero() || timeout > Duration::from_secs(30) {
        return wrong("timeout", &format!("Invalid value: {:?}: must be > 0s and <= 30s", entry.timeout));
    }
    if !matches!(entry.subject_access_review_version.as_str(), "v1" | "v1beta1") {
        let why = format!(
            "Unsupported value: {:?}: supported values: \"v1\", \"v1beta1\"",
            entry.subject_access_review_version
        );
        return wrong("subjectAccessReviewVersion", &why);
    }
    let version = entry.match_condition_subject_access_review_version.as_deref();
    if !entry.match_conditions.is_empty() && version != Some("v1") {
        return wrong("matchConditionSubjectAccessReviewVersion", "Required value: must be v1 with matchConditions");
    }
    let deny_on_failure = match entry.failure_policy.as_str() {
        "Deny" => true,
        "NoOpinion" => false,
        other => {
            let why = format!("Unsupported value: {other:?}: supported values: \"Deny\", \"NoOpinion\"");
            return wrong("failurePolicy", &why);
        }
    };
    let kubeconfig = match (entry.connection_info.kind.as_str(), &entry.connection_info.kube_config_file) {
        ("KubeConfigFile", Some(path)) => path,
        ("KubeConfigFile", None) => return wrong("connectionInfo.kubeConfigFile", "Required value"),
        (other, _) => {
            let why = format!("Unsupported value: {other:?}: supported values: \"KubeConfigFile\"");
            return wrong("connectionInfo.type", &why);
        }
    };
    let endpoint = Endpoint::of_kubeconfig(kubeconfig, timeout)
        .map_err(|e| (".connectionInfo.kubeConfigFile".to_owned(), e.to_string()))?;
    let mut webhook = Webhook::new(endpoint, &entry.subject_access_review_version);
    let ttl = |field: &str, text: &Option<String>, default: Duration, cached: bool| match text {
        _ if !cached => Ok(Duration::ZERO),
        Some(text) => time(field, text),
        None => Ok(default),
    };
    webhook.authorized_ttl =
        ttl("authorizedTTL", &entry.authorized_ttl, webhook.authorized_ttl, entry.cache_authorized_requests)?;
    webhook.unauthorized_ttl =
        ttl("unauthorizedTTL", &entry.unauthorized_ttl, webhook.unauthorized_ttl, entry.cache_unauthorized_requests)?;
    webhook.deny_on_failure = deny_on_failure;
    webhook.conditions = conditions(&entry.match_conditions)?;
    Ok(webhook)
}

fn conditions(list: &[Condition]) -> At<Vec<Expression>> {
    if list.len() > MAX_MATCH_CONDITIONS {
        let why = format!("Too many: {}: must have at most {MAX_MATCH_CONDITIONS} items", list.len());
        return Err((".matchConditions".into(), why));
    }
    let compile = |(at, condition): (usize, &Condition)| {
        let failed = |why| {
            (format!(".matchConditions[{at}].expression"), format!("Invalid value: {:?}: {why}", condition.expression))
        };
        Expression::compile(&condition.expression, "request").map_err(failed)
    };
    list.iter().enumerate().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorization.yaml");
        std::fs::write(&path, text).unwrap();
        let settings = AuthorizationSettings { file: Some(path), ..AuthorizationSettings::default() };
        match settings.modes() {
            Ok(modes) => assert_eq!(format!("{modes:?}"), expected),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}"),
        }
    }

    #[test]
    fn files_say_the_order_of_the_modes() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        check(&format!("{head}authorizers:\n- {{type: Node, name: n}}\n- {{type: RBAC, name: r}}"), "[Node, Rbac]");
        check(head, "Required value: at least one authorization mode");
        check(
            &format!("{head}authorizers:\n- {{type: RBAC, name: r}}\n- {{type: Node, name: r}}"),
            "authorizers[1].name",
        );
        check(&format!("{head}authorizers:\n- {{type: Abac, name: r}}"), "Unsupported value: \"Abac\"");
        check(&format!("{head}authorizers:\n- {{type: Webhook, name: r}}"), "required when type=Webhook");
        check("apiVersion: v1\nkind: Pod", "AuthorizationConfiguration");
    }

    #[test]
    fn flags_say_the_same() {
        let modes = |list: &[&str]| {
            let modes = list.iter().map(|m| (*m).to_owned()).collect();
            AuthorizationSettings { modes, ..AuthorizationSettings::default() }.modes()
        };
        assert_eq!(format!("{:?}", modes(&[]).unwrap()), "[Node, Rbac]");
        assert_eq!(format!("{:?}", modes(&["RBAC", "AlwaysDeny"]).unwrap()), "[Rbac, AlwaysDeny]");
        assert!(modes(&["RBAC", "RBAC"]).is_err() && modes(&["Webhook"]).is_err() && modes(&["x"]).is_err());
    }
}
