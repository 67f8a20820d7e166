//! PodSecurityConfiguration: what counts for namespaces without labels, and who is let off.

use super::policy::{Level, Policies, Policy, parse_version};
use serde_json::Value;

/// Nothing is asked by default, and nobody is exempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    pub(super) defaults: Policies,
    pub(super) usernames: Vec<String>,
    pub(super) namespaces: Vec<String>,
    pub(super) runtime_classes: Vec<String>,
}

impl Configuration {
    /// Reads a `PodSecurityConfiguration`; the error says which field is wrong.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let version = value["apiVersion"].as_str().unwrap_or_default();
        let known = version.strip_prefix("pod-security.admission.config.k8s.io/");
        if value["kind"] != "PodSecurityConfiguration" || !matches!(known, Some("v1" | "v1beta1" | "v1alpha1")) {
            let kind = value["kind"].as_str().unwrap_or_default();
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        let defaults = &value["defaults"];
        let exemptions = &value["exemptions"];
        let names = |field: &str| -> Result<Vec<String>, String> {
            let items = exemptions[field].as_array().into_iter().flatten();
            let name = |item: &Value| item.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
            items.map(|item| name(item).ok_or_else(|| format!("exemptions.{field}: {item} is no name"))).collect()
        };
        Ok(Self {
            defaults: Policies {
                enforce: policy(defaults, "enforce")?,
                audit: policy(defaults, "audit")?,
                warn: policy(defaults, "warn")?,
            },
            usernames: names("usernames")?,
            namespaces: names("namespaces")?,
            runtime_classes: names("runtimeClasses")?,
        })
    }

    pub(super) fn lets_off(&self, namespace: &str, user: &str) -> bool {
        self.namespaces.iter().any(|name| name == namespace) || self.usernames.iter().any(|name| name == user)
    }

    pub(super) fn lets_off_class(&self, spec: &Value) -> bool {
        let class = spec["runtimeClassName"].as_str().unwrap_or_default();
        !class.is_empty() && self.runtime_classes.iter().any(|name| name == class)
    }
}

fn policy(defaults: &Value, mode: &str) -> Result<Policy, String> {
    let text = |field: &str| defaults[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let field = format!("{mode}-version");
    let level = text(mode).map_or(Ok(Level::Privileged), |text| {
        Level::parse(&text).map_err(|why| format!("defaults.{mode}: Invalid value: {text:?}: {why}"))
    })?;
    let version = text(&field).map_or(Ok(None), |text| {
        parse_version(&text).map_err(|why| format!("defaults.{field}: Invalid value: {text:?}: {why}"))
    })?;
    Ok(Policy { level, version })
}
