//! PodSecurity: the levels that the labels of a namespace ask of its pods: enforced, noted for audit, warned of.
//!
//! Source: `k8s.io/pod-security-admission` of Kubernetes.

mod baseline;
mod containers;
mod restricted;
#[cfg(test)]
mod tests;

use pintle_registry::{Attributes, GetOptions, Operation, Registry};
use pintle_types::Status;
use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io";
/// The newest minor version whose rules are known.
const LATEST: u32 = 36;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a version; nothing is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    level: Level,
    version: Option<u32>,
}

impl Policy {
    /// What a namespace's labels say for `enforce`, `audit` or `warn`. What they say wrong is taken for the strictest.
    fn of(labels: &Value, mode: &str) -> Self {
        let label = |suffix: &str| labels.get(format!("{PREFIX}/{mode}{suffix}")).and_then(Value::as_str);
        let level = match label("") {
            None | Some("privileged") => Level::Privileged,
            Some("baseline") => Level::Baseline,
            Some(_) => Level::Restricted,
        };
        let version = label("-version").and_then(|text| text.strip_prefix("v1.")).and_then(|minor| minor.parse().ok());
        Self { level, version }
    }

    fn minor(self) -> u32 {
        self.version.unwrap_or(LATEST)
    }

    /// All that a pod does against the policy: `privileged (container "a" must not …), hostPort (…)`.
    fn violations(self, metadata: &Value, spec: &Value) -> Option<String> {
        if self.level == Level::Privileged {
            return None;
        }
        let restricted = self.level == Level::Restricted;
        let mut found = baseline::violations(metadata, spec, self.minor(), restricted);
        if restricted {
            found.extend(restricted::violations(spec, self.minor()));
        }
        if found.is_empty() {
            return None;
        }
        let told = found
            .into_iter()
            .map(|v| if v.detail.is_empty() { v.reason } else { format!("{} ({})", v.reason, v.detail) });
        Some(told.collect::<Vec<_>>().join(", "))
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What a pod does that it must not.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    reason: String,
    detail: String,
}

fn violation(reason: &str, detail: impl Into<String>) -> Violation {
    Violation { reason: reason.to_owned(), detail: detail.into() }
}

/// The metadata and the spec of the pods that an object makes.
fn pod_of<'a>(attributes: &Attributes<'_>, object: &'a Value) -> Option<(&'a Value, &'a Value)> {
    let template = match (&*attributes.def.storage.group, &*attributes.def.storage.resource) {
        ("", "pods") => object,
        ("", "podtemplates") => &object["template"],
        ("", "replicationcontrollers") => &object["spec"]["template"],
        ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets") => &object["spec"]["template"],
        ("batch", "jobs") => &object["spec"]["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    template["spec"].is_object().then_some((&template["metadata"], &template["spec"]))
}

/// Judges pods, and warns of what makes pods that would be refused.
pub async fn validate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !matches!(attributes.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let is_pod = attributes.def.group.is_empty() && attributes.def.resource == "pods";
    let concerned = attributes.subresource.is_empty() || (is_pod && attributes.subresource == "ephemeralcontainers");
    let Some(object) = attributes.object.take() else { return Ok(()) };
    let result = match pod_of(attributes, &object).filter(|_| concerned && !attributes.namespace.is_empty()) {
        Some((metadata, spec)) => judge(registry, attributes, is_pod, metadata, spec).await,
        None => Ok(()),
    };
    attributes.object = Some(object);
    result
}

async fn judge(
    registry: &Registry,
    attributes: &mut Attributes<'_>,
    is_pod: bool,
    metadata: &Value,
    spec: &Value,
) -> Result<(), Status> {
    if is_pod && attributes.operation == Operation::Update && !is_significant(attributes, spec) {
        return Ok(());
    }
    let labels = labels_of(registry, attributes.namespace).await?;
    let policy = |mode: &str| Policy::of(&labels, mode);
    let would = |policy: Policy| {
        Some(format!("would violate PodSecurity \"{policy}\": {}", policy.violations(metadata, spec)?))
    };
    let mut refused = None;
    if is_pod {
        let enforced = policy("enforce");
        attributes.annotate(&format!("{PREFIX}/enforce-policy"), enforced.to_string());
        refused = enforced.violations(metadata, spec).map(|why| format!("violates PodSecurity \"{enforced}\": {why}"));
    }
    if let Some(told) = would(policy("audit")) {
        attributes.annotate(&format!("{PREFIX}/audit-violations"), told);
    }
    match refused {
        Some(why) => Err(Status::forbidden(&attributes.def.group, &attributes.def.resource, attributes.name, &why)),
        None => {
            attributes.warnings.extend(would(policy("warn")));
            Ok(())
        }
    }
}

/// Whether an update of a pod changes what the levels are about.
fn is_significant(attributes: &Attributes<'_>, spec: &Value) -> bool {
    if attributes.subresource == "ephemeralcontainers" {
        return true;
    }
    let Some(old) = attributes.old_object.as_deref() else { return true };
    let images = |spec: &Value| -> Vec<Value> {
        let lists = ["initContainers", "containers"].into_iter();
        lists.flat_map(|list| spec[list].as_array().cloned().unwrap_or_default()).map(|c| c["image"].clone()).collect()
    };
    images(spec) != images(&old["spec"])
}

async fn labels_of(registry: &Registry, namespace: &str) -> Result<Value, Status> {
    let table = registry.table();
    let def = table.get("", "v1", "namespaces").ok_or_else(Status::no_such_resource)?;
    let found = registry.get(def, "", namespace, &GetOptions::default()).await?.to_value();
    Ok(found["metadata"]["labels"].clone())
}
