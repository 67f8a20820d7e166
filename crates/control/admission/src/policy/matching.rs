//! Which writes a policy or a binding concerns: resource rules, exclusions, namespace and object selectors.

use super::World;
use crate::matching::{Rule, Seen, Selectors, equivalent};
use pintle_kinds::ResourceDef;
use pintle_registry::Attributes;
use pintle_types::Status;
use serde_json::Value;

/// `matchConstraints` of a policy, or `matchResources` of a binding.
pub(super) struct Constraints {
    rules: Vec<NamedRule>,
    excluded: Vec<NamedRule>,
    /// `matchPolicy: Exact`.
    exact: bool,
    selectors: Selectors,
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

impl Constraints {
    pub fn new(resources: &Value) -> Self {
        let rules = |field: &str| resources[field].as_array().into_iter().flatten().map(NamedRule::new).collect();
        Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            exact: resources["matchPolicy"] == "Exact",
            selectors: Selectors::new(resources),
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
        let selectors = &self.selectors;
        if !selectors.object_matches(attributes) || !selectors.namespace_matches(world.registry, attributes).await? {
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
        let named = |other: &ResourceDef| rules.iter().any(|rule| rule.names(attributes, other));
        equivalent(world.registry, def, named).map(Some)
    }
}
