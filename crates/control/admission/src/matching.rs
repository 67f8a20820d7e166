//! What webhooks and policies share of telling which writes they concern: rules, equivalent versions, selectors.
//!
//! Source: `pkg/admission/plugin/webhook/{generic,rules,predicates}` of Kubernetes' apiserver.

use pintle_kinds::ResourceDef;
use pintle_registry::{Attributes, GetOptions, Operation, Registry};
use pintle_types::Status;
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector as TypedSelector;
use pintle_types::selector::LabelSelector;
use serde_json::Value;
use std::sync::Arc;

/// Operations with groups, versions and resources, each with `*` for all.
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    pub resources: Vec<(String, String)>,
    /// `Cluster`, `Namespaced` or `*`.
    scope: String,
}

impl Rule {
    pub fn new(rule: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let split = |name: String| match name.split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (name, String::new()),
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources").into_iter().map(split).collect(),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    pub fn takes(&self, attributes: &Attributes<'_>) -> bool {
        let cluster = attributes.namespace.is_empty() || is_namespace(attributes);
        let in_scope = match &*self.scope {
            "Namespaced" => !cluster,
            "Cluster" => cluster,
            _ => true,
        };
        in_scope && has(&self.operations, attributes.operation.as_str())
    }

    pub fn names(&self, group: &str, version: &str, resource: &str, sub: &str) -> bool {
        let matches = |pattern: &str, name: &str| pattern == "*" || pattern == name;
        has(&self.groups, group)
            && has(&self.versions, version)
            && self.resources.iter().any(|(r, s)| matches(r, resource) && matches(s, sub))
    }
}

fn has(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern == "*" || pattern == name)
}

pub(crate) fn is_namespace(attributes: &Attributes<'_>) -> bool {
    attributes.def.group.is_empty() && attributes.def.resource == "namespaces"
}

/// The objects that say who is asked are nobody's to ask about: whoever broke them could not mend them.
pub(crate) fn is_exempt(attributes: &Attributes<'_>) -> bool {
    attributes.def.group == "admissionregistration.k8s.io"
        && matches!(
            &*attributes.def.resource,
            "mutatingwebhookconfigurations"
                | "validatingwebhookconfigurations"
                | "validatingadmissionpolicies"
                | "validatingadmissionpolicybindings"
                | "mutatingadmissionpolicies"
                | "mutatingadmissionpolicybindings"
        )
}

/// The version in which the hook is to see the write: that of the request when `Some(None)`.
pub(crate) type Seen = Option<Arc<ResourceDef>>;

/// The first other version of the resource of a write that `wanted` picks.
pub(crate) fn equivalent(
    registry: &Registry,
    def: &ResourceDef,
    wanted: impl Fn(&ResourceDef) -> bool,
) -> Option<Arc<ResourceDef>> {
    let same = |other: &&Arc<ResourceDef>| {
        other.storage.key_prefix == def.storage.key_prefix
            && (&other.group, &other.version) != (&def.group, &def.version)
    };
    registry.table().iter().filter(same).find(|other| wanted(other)).cloned()
}

/// `namespaceSelector` and `objectSelector`.
pub(crate) struct Selectors {
    namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Selectors {
    /// Those of a hook, of `matchConstraints` or of `matchResources`; one that is absent picks everything.
    pub fn new(of: &Value) -> Self {
        let selector = |field: &str| {
            let typed: Option<TypedSelector> = serde_json::from_value(of[field].clone()).ok();
            if of[field].is_null() { LabelSelector::default() } else { LabelSelector::from_typed(typed.as_ref()) }
        };
        Self { namespaces: selector("namespaceSelector"), objects: selector("objectSelector") }
    }

    #[cfg(test)]
    pub fn are_everything(&self) -> bool {
        self.namespaces.is_everything() && self.objects.is_everything()
    }

    /// Whether the object matches as it is, or as it was.
    pub fn object_matches(&self, attributes: &Attributes<'_>) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        let matches = |object: &Value| selects(&self.objects, &object["metadata"]["labels"]);
        attributes.object.as_ref().is_some_and(matches) || attributes.old_object.as_deref().is_some_and(matches)
    }

    /// Whether the namespace of the write matches; what is in none does.
    pub async fn namespace_matches(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<bool, Status> {
        if self.namespaces.is_everything() {
            return Ok(true);
        }
        if is_namespace(attributes) {
            return Ok(selects(&self.namespaces, own_labels(attributes)));
        }
        match namespace(registry, attributes).await? {
            None => Ok(true),
            Some(namespace) => Ok(selects(&self.namespaces, &namespace["metadata"]["labels"])),
        }
    }
}

/// Labels of a namespace that a write creates or changes come from the write.
fn own_labels<'v>(attributes: &'v Attributes<'_>) -> &'v Value {
    let written = matches!(attributes.operation, Operation::Create | Operation::Update);
    let new = attributes.object.as_ref().filter(|_| written && attributes.subresource.is_empty());
    let object = new.or(attributes.old_object.as_deref()).unwrap_or(&Value::Null);
    &object["metadata"]["labels"]
}

/// The namespace that a write is in; nothing for what is in none.
pub(crate) async fn namespace(registry: &Registry, attributes: &Attributes<'_>) -> Result<Option<Value>, Status> {
    if attributes.namespace.is_empty() || is_namespace(attributes) {
        return Ok(None);
    }
    let table = registry.table();
    let Some(def) = table.get("", "v1", "namespaces") else { return Ok(None) };
    let namespace = registry.get(def, "", attributes.namespace, &GetOptions::default()).await?;
    Ok(Some(namespace.to_value()))
}

fn selects(selector: &LabelSelector, labels: &Value) -> bool {
    selector.matches_with(|key| labels.get(key).and_then(Value::as_str))
}
