//! How much the registry holds, for metrics and for estimates of what a list costs.

use crate::registry::Registry;
use pintle_kinds::ResourceDef;
use pintle_types::Status;

impl Registry {
    /// The objects of a resource, in all namespaces.
    pub fn count(&self, def: &ResourceDef) -> usize {
        self.cache.shared.resource(&def.storage.key_prefix).map_or(0, |resource| resource.snapshot().len())
    }

    /// The objects of each stored resource, as `(group, resource, count)`.
    pub fn counts(&self) -> Vec<(String, String, usize)> {
        let table = self.table();
        let stored = |def: &&std::sync::Arc<ResourceDef>| {
            def.has_verb("list") && def.storage.group == def.group && def.storage.version == def.version
        };
        let mut counts: Vec<_> = table
            .iter()
            .filter(stored)
            .map(|def| (def.group.to_string(), def.resource.to_string(), self.count(def)))
            .collect();
        counts.sort();
        counts.dedup();
        counts
    }

    /// Whether the store answers.
    pub async fn check_store(&self) -> Result<(), Status> {
        self.store.revision().await.map(|_| ()).map_err(Status::internal)
    }
}
