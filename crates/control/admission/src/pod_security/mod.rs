//! PodSecurity: the levels that the labels of a namespace ask of its pods: enforced, noted for audit, warned of.
//!
//! Source: `k8s.io/pod-security-admission` of Kubernetes.

mod baseline;
mod configuration;
mod containers;
mod namespaces;
mod policy;
mod restricted;
#[cfg(test)]
mod tests;

pub use configuration::Configuration;

use pintle_registry::{Attributes, GetOptions, Operation, Registry};
use pintle_types::Status;
use policy::{Policies, Policy};
use serde_json::Value;

/// What a pod does that it must not.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    reason: String,
    detail: String,
}

fn violation(reason: &str, detail: impl Into<String>) -> Violation {
    Violation { reason: reason.to_owned(), detail: detail.into() }
}

/// Subresources of pods that cannot change what their containers may do.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

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

/// Judges pods, warns of what makes pods that would be refused, and of namespaces whose pods would be.
pub async fn validate(
    configuration: &Configuration,
    registry: &Registry,
    attributes: &mut Attributes<'_>,
) -> Result<(), Status> {
    if !matches!(attributes.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let (group, resource) = (&*attributes.def.group, &*attributes.def.resource);
    let (is_pod, sub) = (group.is_empty() && resource == "pods", attributes.subresource);
    if group.is_empty() && resource == "namespaces" && sub.is_empty() {
        return namespaces::judge(configuration, registry, attributes).await;
    }
    let concerned = sub.is_empty() || (is_pod && !HARMLESS.contains(&sub));
    if !concerned
        || attributes.namespace.is_empty()
        || configuration.lets_off(attributes.namespace, &attributes.user.name)
    {
        return Ok(());
    }
    let Some(object) = attributes.object.take() else { return Ok(()) };
    let result = match pod_of(attributes, &object) {
        Some((metadata, spec)) if !configuration.lets_off_class(spec) => {
            let insignificant = is_pod
                && attributes.operation == Operation::Update
                && attributes.old_object.as_deref().is_some_and(|old| !is_significant(&object, old));
            match insignificant {
                true => Ok(()),
                false => judge(configuration, registry, attributes, is_pod, metadata, spec).await,
            }
        }
        _ => Ok(()),
    };
    attributes.object = Some(object);
    result
}

async fn judge(
    configuration: &Configuration,
    registry: &Registry,
    attributes: &mut Attributes<'_>,
    is_pod: bool,
    metadata: &Value,
    spec: &Value,
) -> Result<(), Status> {
    let labels = labels_of(registry, attributes.namespace).await?;
    let (policies, errors) = Policies::of(&labels, &configuration.defaults);
    if policies.are_privileged() && errors.is_empty() {
        return Ok(());
    }
    if !errors.is_empty() {
        let told = format!("Failed to parse policy: {}", namespaces::shown(&errors));
        attributes.annotate("pod-security.kubernetes.io/error", told);
    }
    let would =
        |policy: Policy| Some(format!("would violate PodSecurity \"{policy}\": {}", policy.told(metadata, spec)?));
    let mut refused = None;
    if is_pod {
        let enforced = policies.enforce;
        attributes.annotate("pod-security.kubernetes.io/enforce-policy", enforced.to_string());
        refused = enforced.told(metadata, spec).map(|why| format!("violates PodSecurity \"{enforced}\": {why}"));
    }
    if let Some(told) = would(policies.audit) {
        attributes.annotate("pod-security.kubernetes.io/audit-violations", told);
    }
    match refused {
        Some(why) => Err(Status::forbidden(&attributes.def.group, &attributes.def.resource, attributes.name, &why)),
        None => {
            attributes.warnings.extend(would(policies.warn));
            Ok(())
        }
    }
}

/// Whether an update of a pod changes what the levels are about: images and seccomp annotations of containers.
fn is_significant(new: &Value, old: &Value) -> bool {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let annotation = |pod: &Value, key: &str| pod["metadata"]["annotations"].get(key).cloned();
    let differs = |new_container: &Value, old_container: &Value| {
        let name = new_container["name"].as_str().unwrap_or_default();
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        new_container["image"] != old_container["image"] || annotation(new, &key) != annotation(old, &key)
    };
    if annotation(new, POD) != annotation(old, POD) {
        return true;
    }
    for list in ["containers", "initContainers"] {
        let (after, before) = (items(new, list), items(old, list));
        if after.len() != before.len() || after.iter().zip(before).any(|(after, before)| differs(after, before)) {
            return true;
        }
    }
    let before = items(old, "ephemeralContainers");
    items(new, "ephemeralContainers").iter().any(|container| {
        before.iter().find(|other| other["name"] == container["name"]).is_none_or(|other| differs(container, other))
    })
}

fn items<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    pod["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default()
}

async fn labels_of(registry: &Registry, namespace: &str) -> Result<Value, Status> {
    let table = registry.table();
    let def = table.get("", "v1", "namespaces").ok_or_else(Status::no_such_resource)?;
    let found = registry.get(def, "", namespace, &GetOptions::default()).await?.to_value();
    Ok(found["metadata"]["labels"].clone())
}
