//! Which writes a hook is asked about: rules, equivalent versions, namespace and object selectors.
//!
//! Source: `pkg/admission/plugin/webhook/{generic,rules,predicates}` of Kubernetes' apiserver.

use super::World;
use super::config::Hook;
use pintle_kinds::ResourceDef;
use pintle_registry::{Attributes, GetOptions, Operation};
use pintle_types::Status;
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

impl Hook {
    /// Whether the hook's selectors and rules name this write, and in which version.
    pub async fn concerns(&self, world: &World<'_>, attributes: &Attributes<'_>) -> Result<Option<Seen>, Status> {
        // Cheapest first; upstream's order matters only when a namespace is missing.
        let Some(seen) = self.rule_for(world, attributes) else { return Ok(None) };
        if !self.namespace_matches(world, attributes).await? || !self.object_matches(attributes) {
            return Ok(None);
        }
        Ok(Some(seen))
    }

    fn rule_for(&self, world: &World<'_>, attributes: &Attributes<'_>) -> Option<Seen> {
        let def = attributes.def;
        let sub = attributes.subresource;
        let rules = || self.rules.iter().filter(|rule| rule.takes(attributes));
        if rules().any(|rule| rule.names(&def.group, &def.version, &def.resource, sub)) {
            return Some(None);
        }
        if self.exact || rules().next().is_none() {
            return None;
        }
        let table = world.registry.table();
        let same = |other: &&Arc<ResourceDef>| {
            other.storage.key_prefix == def.storage.key_prefix
                && (&other.group, &other.version) != (&def.group, &def.version)
        };
        let named =
            |other: &&Arc<ResourceDef>| rules().any(|r| r.names(&other.group, &other.version, &other.resource, sub));
        table.iter().filter(same).find(named).map(|other| Some(other.clone()))
    }

    fn object_matches(&self, attributes: &Attributes<'_>) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        let matches = |object: &Value| selects(&self.objects, &object["metadata"]["labels"]);
        attributes.object.as_ref().is_some_and(matches) || attributes.old_object.as_deref().is_some_and(matches)
    }

    async fn namespace_matches(&self, world: &World<'_>, attributes: &Attributes<'_>) -> Result<bool, Status> {
        if self.namespaces.is_everything() {
            return Ok(true);
        }
        if is_namespace(attributes) {
            let created = matches!(attributes.operation, Operation::Create | Operation::Update);
            if let Some(object) = attributes.object.as_ref().filter(|_| created && attributes.subresource.is_empty()) {
                return Ok(selects(&self.namespaces, &object["metadata"]["labels"]));
            }
            let old = attributes.old_object.as_deref().unwrap_or(&Value::Null);
            return Ok(selects(&self.namespaces, &old["metadata"]["labels"]));
        }
        if attributes.namespace.is_empty() {
            return Ok(true);
        }
        let table = world.registry.table();
        let Some(def) = table.get("", "v1", "namespaces") else { return Ok(true) };
        let namespace = world.registry.get(def, "", attributes.namespace, &GetOptions::default()).await?;
        Ok(selects(&self.namespaces, &namespace.to_value()["metadata"]["labels"]))
    }
}

pub(crate) fn selects(selector: &LabelSelector, labels: &Value) -> bool {
    selector.matches_with(|key| labels.get(key).and_then(Value::as_str))
}
