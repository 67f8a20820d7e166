//! Flow schemas and priority levels as they are configured, and which schema a request matches.

use serde::Deserialize;
use serde_json::Value;

/// What a request is, as far as flow schemas ask.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub target: Target<'a>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// `namespace` is empty for what is in none, and for requests over all of them.
    Resource {
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
    },
    Path(&'a str),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Schema {
    pub metadata: Metadata,
    pub spec: SchemaSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SchemaSpec {
    pub matching_precedence: i64,
    pub priority_level_configuration: Named,
    pub distinguisher_method: Option<Method>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named {
    pub name: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Method {
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<PathRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

impl Schema {
    pub fn read(object: &Value) -> Option<Self> {
        Self::deserialize(object).ok()
    }

    pub fn matches(&self, digest: &Digest<'_>) -> bool {
        self.spec.rules.iter().any(|rule| rule.matches(digest))
    }

    /// What tells the flows of this schema apart.
    pub fn distinguisher<'a>(&self, digest: &Digest<'a>) -> &'a str {
        match (self.spec.distinguisher_method.as_ref().map(|m| m.kind.as_str()), digest.target) {
            (Some("ByUser"), _) => digest.user,
            (Some("ByNamespace"), Target::Resource { namespace, .. }) => namespace,
            _ => "",
        }
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == value || item == "*")
}

impl Rule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.matches(digest))
            && match digest.target {
                Target::Resource { .. } => self.resource_rules.iter().any(|rule| rule.matches(digest)),
                Target::Path(path) => self.non_resource_rules.iter().any(|rule| rule.matches(digest.verb, path)),
            }
    }
}

impl Subject {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        match self.kind.as_str() {
            "User" => self.user.name == "*" || self.user.name == digest.user,
            "Group" => self.group.name == "*" || digest.groups.contains(&self.group.name),
            "ServiceAccount" => {
                let account = digest.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(namespace, name)| {
                    let wanted = &self.service_account;
                    wanted.namespace == namespace && (wanted.name == "*" || wanted.name == name)
                })
            }
            _ => false,
        }
    }
}

impl ResourceRule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        let Target::Resource { group, resource, subresource, namespace } = digest.target else { return false };
        let named = |item: &String| match subresource {
            "" => item == resource,
            _ => item.split_once('/').is_some_and(|(r, s)| r == resource && s == subresource),
        };
        let everything = self.resources.iter().any(|item| item == "*");
        has(&self.verbs, digest.verb)
            && has(&self.api_groups, group)
            && (everything || self.resources.iter().any(named))
            && if namespace.is_empty() { self.cluster_scope } else { has(&self.namespaces, namespace) }
    }
}

impl PathRule {
    fn matches(&self, verb: &str, path: &str) -> bool {
        has(&self.verbs, verb)
            && self.urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => path == url,
            })
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LevelObject {
    pub metadata: Metadata,
    pub spec: LevelSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct LevelSpec {
    #[serde(rename = "type")]
    pub kind: String,
    limited: Limited,
    exempt: Limited,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limited {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
    borrowing_limit_percent: Option<u32>,
    limit_response: Response,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Response {
    queuing: Option<Queuing>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Queuing {
    pub queues: usize,
    pub hand_size: usize,
    pub queue_length_limit: usize,
}

/// More queues than these cost memory and bring nothing.
const MAX_QUEUES: usize = 10_000;

impl LevelObject {
    pub fn read(object: &Value) -> Option<Self> {
        Self::deserialize(object).ok()
    }

    pub fn exempt(&self) -> bool {
        self.spec.kind == "Exempt"
    }

    fn limits(&self) -> &Limited {
        if self.exempt() { &self.spec.exempt } else { &self.spec.limited }
    }

    pub fn shares(&self) -> u32 {
        self.limits().nominal_concurrency_shares.unwrap_or(if self.exempt() { 0 } else { 30 })
    }

    pub fn lendable_percent(&self) -> u32 {
        self.limits().lendable_percent.unwrap_or(0).min(100)
    }

    pub fn borrowing_percent(&self) -> Option<u32> {
        self.limits().borrowing_limit_percent
    }

    /// Nothing when the level rejects what it has no seat for.
    pub fn queuing(&self) -> Option<Queuing> {
        let queuing = self.spec.limited.limit_response.queuing.filter(|_| !self.exempt())?;
        let queues = queuing.queues.clamp(1, MAX_QUEUES);
        Some(Queuing { queues, hand_size: queuing.hand_size.clamp(1, queues), ..queuing })
    }
}
