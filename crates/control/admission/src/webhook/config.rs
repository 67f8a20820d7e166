//! Configurations of webhooks as they are used: each hook with its rules, selectors, and the way to its server.

use super::conditions::Condition;
use crate::matching::{Rule, Selectors};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use pintle_aggregator::{Remote, ServiceRef, Trust};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The two kinds of configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    Mutating,
    Validating,
}

impl Flavor {
    /// The label `type` of metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validating",
        }
    }

    /// The label `type` of what is counted of match conditions.
    pub(super) fn condition_label(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validate",
        }
    }

    /// The word in keys of audit annotations.
    pub(super) fn audit_word(self) -> &'static str {
        match self {
            Self::Mutating => "mutation",
            Self::Validating => "validating",
        }
    }
}

/// The form of the review that a hook understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReviewVersion {
    V1,
    V1beta1,
}

impl ReviewVersion {
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1beta1 => "v1beta1",
        }
    }
}

/// Where a hook's server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Service(ServiceRef),
    Host(String, u16),
}

/// A hook's server.
pub(super) struct Client {
    pub place: Place,
    /// `https://HOST[:PORT]/PATH`, as error messages show it, without the timeout.
    pub url: String,
    /// Path and query that are asked for.
    pub path: String,
    trust: Trust,
    /// Nothing to do when the settings are wrong but to say so at every call.
    pub remote: Result<Remote, String>,
}

/// One hook of a configuration.
pub(super) struct Hook {
    pub configuration: String,
    pub name: String,
    pub review: Option<ReviewVersion>,
    /// `failurePolicy: Fail`.
    pub fail: bool,
    pub timeout: Duration,
    pub side_effects: String,
    /// `reinvocationPolicy: IfNeeded`.
    pub reinvoke: bool,
    /// `matchPolicy: Exact`.
    pub exact: bool,
    pub selectors: Selectors,
    pub rules: Vec<Rule>,
    pub conditions: Vec<Condition>,
    pub client: Result<Arc<Client>, String>,
}

const DEFAULT_TIMEOUT_SECONDS: u64 = 10;

impl Hook {
    pub fn all_of(flavor: Flavor, configuration: &Value, before: &[Arc<Hook>]) -> Vec<Arc<Hook>> {
        let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
        let hooks = configuration["webhooks"].as_array().into_iter().flatten();
        hooks.map(|hook| Arc::new(Hook::new(flavor, name, hook, before))).collect()
    }

    fn new(flavor: Flavor, configuration: &str, hook: &Value, before: &[Arc<Hook>]) -> Self {
        let text = |field: &str| hook[field].as_str().unwrap_or_default().to_owned();
        let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten();
        let review = versions.filter_map(Value::as_str).find_map(|version| match version {
            "v1" => Some(ReviewVersion::V1),
            "v1beta1" => Some(ReviewVersion::V1beta1),
            _ => None,
        });
        let items = |field: &str| hook[field].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            configuration: configuration.to_owned(),
            name: text("name"),
            review,
            fail: text("failurePolicy") != "Ignore",
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT_SECONDS)),
            side_effects: text("sideEffects"),
            reinvoke: flavor == Flavor::Mutating && text("reinvocationPolicy") == "IfNeeded",
            exact: text("matchPolicy") == "Exact",
            selectors: Selectors::new(hook),
            rules: items("rules").iter().map(Rule::new).collect(),
            conditions: items("matchConditions").iter().map(Condition::new).collect(),
            client: Client::new(&hook["clientConfig"], before),
        }
    }

    /// The resources that rules name, without their subresources and without wildcards.
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flat_map(|rule| &rule.resources).map(|(resource, _)| &**resource).filter(|name| *name != "*")
    }

    pub fn has_wildcard(&self) -> bool {
        self.rules.iter().any(|rule| rule.resources.iter().any(|(resource, _)| resource == "*"))
    }

    pub fn may_concern(&self, resource: &str) -> bool {
        self.has_wildcard() || self.resources().any(|name| name == resource)
    }
}

impl Client {
    /// Takes over the connections of an earlier hook that had the same settings.
    fn new(config: &Value, before: &[Arc<Hook>]) -> Result<Arc<Self>, String> {
        let (place, host, url, path) = place(config)?;
        let bundle = config["caBundle"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        let trust = if bundle.is_empty() { Trust::Machine } else { Trust::Bundle(bundle) };
        let mut known = before.iter().filter_map(|hook| hook.client.as_ref().ok());
        if let Some(same) = known.find(|c| c.place == place && c.url == url && c.trust == trust) {
            return Ok(same.clone());
        }
        let remote = Remote::new(&host, &trust, None).map_err(|error| error.to_string());
        Ok(Arc::new(Self { place, url, path, trust, remote }))
    }
}

type Located = (Place, String, String, String);

/// Where it is, the name in its certificate, the whole URL, and the path.
fn place(config: &Value) -> Result<Located, String> {
    let service = &config["service"];
    if service.is_object() {
        let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let wanted = ServiceRef { namespace: text("namespace"), name: text("name"), port };
        let path = cleaned(&text("path"));
        let host = wanted.host();
        return Ok((Place::Service(wanted), host.clone(), format!("https://{host}:{port}{path}"), path));
    }
    let Some(url) = config["url"].as_str() else {
        return Err("webhook configuration must have either service or URL".into());
    };
    let uri: Uri = url.parse().map_err(|_| format!("unparsable webhook URL {url:?}"))?;
    let host = uri.host().ok_or_else(|| format!("unparsable webhook URL {url:?}: it names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let path = cleaned(uri.path());
    let url = format!("https://{}{path}", uri.authority().map(http::uri::Authority::as_str).unwrap_or_default());
    Ok((Place::Host(host.clone(), uri.port_u16().unwrap_or(443)), host, url, path))
}

/// With a slash at its beginning and none at its end.
fn cleaned(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}
