//! Which writes a hook is asked about.

use super::World;
use super::config::Hook;
use crate::matching::{Seen, equivalent};
use pintle_registry::Attributes;
use pintle_types::Status;

impl Hook {
    /// Whether the hook's selectors and rules name this write, and in which version.
    pub async fn concerns(&self, world: &World<'_>, attributes: &Attributes<'_>) -> Result<Option<Seen>, Status> {
        // Cheapest first; upstream's order matters only when a namespace is missing.
        let Some(seen) = self.rule_for(world, attributes) else { return Ok(None) };
        let selectors = &self.selectors;
        if !selectors.namespace_matches(world.registry, attributes).await? || !selectors.object_matches(attributes) {
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
        let named = |other: &pintle_kinds::ResourceDef| {
            rules().any(|r| r.names(&other.group, &other.version, &other.resource, sub))
        };
        equivalent(world.registry, def, named).map(Some)
    }
}
