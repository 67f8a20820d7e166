//! The policy file: which requests are audited, how much of them, and at which stages.

use crate::event::{Level, Stage};
use serde::Deserialize;

/// A policy larger than this is none, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the audit policy is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the audit policy cannot be read: {0}")]
    Parse(#[from] serde_yaml_ng::Error),
    #[error("the audit policy must be of kind Policy, apiVersion audit.k8s.io/v1, not {kind} of {version:?}")]
    Kind { kind: String, version: String },
    #[error("the audit policy has no rules: nothing would be audited")]
    NoRules,
    #[error("rules[{rule}] of the audit policy: {why}")]
    Rule { rule: usize, why: String },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde::de::IgnoredAny,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What rules ask about a request.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub path: &'a str,
    /// Nothing for paths that name no resource.
    pub resource: Option<Resource<'a>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Resource<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// What the policy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// `audit.k8s.io/v1` `Policy`.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy file, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_BYTES {
            return Err(PolicyError::TooLong);
        }
        let file: File = serde_yaml_ng::from_str(text)?;
        if file.kind != "Policy" || file.api_version != "audit.k8s.io/v1" {
            return Err(PolicyError::Kind { kind: file.kind, version: file.api_version });
        }
        if file.rules.is_empty() {
            return Err(PolicyError::NoRules);
        }
        for (at, rule) in file.rules.iter().enumerate() {
            rule.check().map_err(|why| PolicyError::Rule { rule: at, why })?;
        }
        Ok(Self { rules: file.rules, omit_stages: file.omit_stages, omit_managed_fields: file.omit_managed_fields })
    }

    /// The first rule that matches decides; without one, nothing is audited.
    pub(crate) fn verdict(&self, request: &Attributes<'_>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(request)) else { return Verdict::default() };
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(&rule.omit_stages);
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Verdict { level: rule.level, omit_stages, omit_managed_fields }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if !self.urls.is_empty() && (!self.resources.is_empty() || !self.namespaces.is_empty()) {
            return Err("rules cannot apply to both regular resources and non-resource URLs".into());
        }
        for url in self.urls.iter().filter(|url| *url != "*") {
            if !url.starts_with('/') {
                return Err(format!("nonResourceURLs: {url:?} must start with a '/'"));
            }
            if url.strip_suffix('*').unwrap_or(url).contains('*') {
                return Err(format!("nonResourceURLs: {url:?}: '*' is allowed at the end only"));
            }
        }
        let unnamed = |r: &GroupResources| !r.resource_names.is_empty() && r.resources.is_empty();
        if self.resources.iter().any(unnamed) {
            return Err("resourceNames: using resourceNames requires at least one resource".into());
        }
        Ok(())
    }

    fn matches(&self, request: &Attributes<'_>) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
        any(&self.users, request.user)
            && any(&self.verbs, request.verb)
            && (self.user_groups.is_empty() || request.groups.iter().any(|g| self.user_groups.contains(g)))
            && self.matches_target(request)
    }

    fn matches_target(&self, request: &Attributes<'_>) -> bool {
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let Some(resource) = request.resource else { return false };
            let named = |n: &String| n == resource.namespace;
            return (self.namespaces.is_empty() || self.namespaces.iter().any(named))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(&resource)));
        }
        if !self.urls.is_empty() {
            let same = |url: &String| match url.strip_suffix('*') {
                Some(prefix) => request.path.starts_with(prefix),
                None => request.path == url,
            };
            return request.resource.is_none() && self.urls.iter().any(same);
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, asked: &Resource<'_>) -> bool {
        let named = |item: &String| match item.split_once('/') {
            None if item == "*" => true,
            None => item == asked.resource && asked.subresource.is_empty(),
            Some(("*", sub)) => sub == asked.subresource,
            Some((resource, "*")) => resource == asked.resource,
            Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
        };
        self.group == asked.group
            && (self.resources.is_empty() || self.resources.iter().any(named))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == asked.name))
    }
}
