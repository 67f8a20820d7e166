//! How much the registry holds and does, for metrics and for estimates of what a list costs.

use crate::cache::Resource;
use crate::registry::Registry;
use pintle_kinds::ResourceDef;
use pintle_types::Status;
use std::time::Duration;

/// A write that the store has answered.
#[derive(Clone, Copy, Debug)]
pub struct StoreRequest<'a> {
    /// `create`, `update` or `delete`, as upstream names them.
    pub operation: &'static str,
    pub group: &'a str,
    pub resource: &'a str,
    pub took: Duration,
    /// The store could not answer. That another write came between is no failure.
    pub failed: bool,
}

/// Who is told of writes.
pub(crate) type StoreObserver = dyn Fn(&StoreRequest<'_>) + Send + Sync;

impl Registry {
    /// The objects of a resource, in all namespaces.
    pub fn count(&self, def: &ResourceDef) -> usize {
        self.cache.shared.resource(&def.storage.key_prefix).map_or(0, |resource| resource.snapshot().len())
    }

    /// The objects of each stored resource, as `(group, resource, count)`.
    pub fn counts(&self) -> Vec<(String, String, usize)> {
        self.of_each(|resource| resource.snapshot().len())
    }

    /// The changes of each stored resource that watchers were offered since the start, in the same form.
    pub fn dispatched(&self) -> Vec<(String, String, u64)> {
        self.of_each(Resource::dispatched)
    }

    /// Tells `observer` of every write to the store. The first one counts.
    pub fn observe_store(&self, observer: impl Fn(&StoreRequest<'_>) + Send + Sync + 'static) {
        self.observer.get_or_init(|| Box::new(observer));
    }

    fn of_each<T: Default + Ord>(&self, figure: impl Fn(&Resource) -> T) -> Vec<(String, String, T)> {
        let table = self.table();
        let stored = |def: &&std::sync::Arc<ResourceDef>| {
            def.has_verb("list") && def.storage.group == def.group && def.storage.version == def.version
        };
        let figure_of = |def: &ResourceDef| {
            self.cache.shared.resource(&def.storage.key_prefix).map_or_else(T::default, |resource| figure(&resource))
        };
        let all = table.iter().filter(stored);
        let mut all: Vec<_> =
            all.map(|def| (def.group.to_string(), def.resource.to_string(), figure_of(def))).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether the store answers.
    pub async fn check_store(&self) -> Result<(), Status> {
        self.store.revision().await.map(|_| ()).map_err(Status::internal)
    }
}
