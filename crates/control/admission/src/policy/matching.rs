//! Which writes a policy or a binding concerns: resource rules, exclusions, namespace and object selectors.

use super::World;
use crate::webhook::matching::{Rule, Seen, is_namespace, selects};
use pintle_kinds::ResourceDef;
use pintle_registry::{Attributes, GetOptions, Operation};
use pintle_types::Status;
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector as TypedSelector;
use pintle_types::selector::LabelSelector;
use serde_json::Value;
use std::sync::Arc;

/// `matchConstraints` of a policy, or `matchResources` of a binding.
pub(super) struct Constraints {
    rules: Vec<NamedRule>,
    excluded: Vec<NamedRule>,
    /// `matchPolicy: Exact`.
    exact: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

/// A rule, for objects of some names or of all.
struct NamedRule {
    rule: Rule,
    names: Vec<String>,
}

impl NamedRule {
    fn new(rule: &Value) -> Self {
        let names = rule["resourceNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Self { rule: Rule::new(rule), names: names.map(str::to_owned).collect() }
    }

    fn names(&self, attributes: &Attributes<'_>, def: &ResourceDef) -> bool {
        self.rule.takes(attributes)
            && self.rule.names(&def.group, &def.version, &def.resource, attributes.subresource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
    }
}

fn selector(value: &Value) -> LabelSelector {
    if value.is_null() {
        return LabelSelector::default();
    }
    let typed: Option<TypedSelector> = serde_json::from_value(value.clone()).ok();
    LabelSelector::from_typed(typed.as_ref())
}

/// Labels of a namespace that a write creates or changes come from the write.
fn own_labels<'v>(attributes: &'v Attributes<'_>) -> &'v Value {
    let written = matches!(attributes.operation, Operation::Create | Operation::Update);
    let new = attributes.object.as_ref().filter(|_| written && attributes.subresource.is_empty());
    let object = new.or(attributes.old_object.as_deref()).unwrap_or(&Value::Null);
    &object["metadata"]["labels"]
}

impl Constraints {
    pub fn new(resources: &Value) -> Self {
        let rules = |field: &str| resources[field].as_array().into_iter().flatten().map(NamedRule::new).collect();
        Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            exact: resources["matchPolicy"] == "Exact",
            namespaces: selector(&resources["namespaceSelector"]),
            objects: selector(&resources["objectSelector"]),
        }
    }

    /// The resources that rules name, without their subresources and without wildcards.
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        let named = self.rules.iter().flat_map(|named| &named.rule.resources);
        named.map(|(resource, _)| &**resource).filter(|name| *name != "*")
    }

    pub fn has_wildcard(&self) -> bool {
        self.rules.iter().any(|named| named.rule.resources.iter().any(|(resource, _)| resource == "*"))
    }

    /// Whether a rule may name the resource, or another version of it under another name.
    pub fn may_concern(&self, resource: &str) -> bool {
        self.has_wildcard() || self.resources().any(|name| name == resource)
    }

    /// Whether they name this write, and in which version.
    pub async fn concern(&self, world: &World<'_>, attributes: &Attributes<'_>) -> Result<Option<Seen>, Status> {
        // Cheapest first; upstream's order matters only when a namespace is missing.
        if Self::any(&self.excluded, self.exact, world, attributes).is_some() {
            return Ok(None);
        }
        let seen = match self.rules.is_empty() {
            true => None,
            false => match Self::any(&self.rules, self.exact, world, attributes) {
                Some(seen) => seen,
                None => return Ok(None),
            },
        };
        if !self.object_matches(attributes) || !self.namespace_matches(world, attributes).await? {
            return Ok(None);
        }
        Ok(Some(seen))
    }

    fn any(rules: &[NamedRule], exact: bool, world: &World<'_>, attributes: &Attributes<'_>) -> Option<Seen> {
        let def = attributes.def;
        if rules.iter().any(|rule| rule.names(attributes, def)) {
            return Some(None);
        }
        if exact || rules.is_empty() {
            return None;
        }
        let same = |other: &&Arc<ResourceDef>| {
            other.storage.key_prefix == def.storage.key_prefix
                && (&other.group, &other.version) != (&def.group, &def.version)
        };
        let table = world.registry.table();
        let equivalents: Vec<&Arc<ResourceDef>> = table.iter().filter(same).collect();
        let named = |rule: &NamedRule| equivalents.iter().find(|other| rule.names(attributes, other));
        rules.iter().find_map(named).map(|other| Some((*other).clone()))
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
            return Ok(selects(&self.namespaces, own_labels(attributes)));
        }
        match namespace(world, attributes).await? {
            None => Ok(true),
            Some(namespace) => Ok(selects(&self.namespaces, &namespace["metadata"]["labels"])),
        }
    }
}

/// The namespace that a write is in; nothing for what is in none.
pub(super) async fn namespace(world: &World<'_>, attributes: &Attributes<'_>) -> Result<Option<Value>, Status> {
    if attributes.namespace.is_empty() || is_namespace(attributes) {
        return Ok(None);
    }
    let table = world.registry.table();
    let Some(def) = table.get("", "v1", "namespaces") else { return Ok(None) };
    let namespace = world.registry.get(def, "", attributes.namespace, &GetOptions::default()).await?;
    Ok(Some(namespace.to_value()))
}
