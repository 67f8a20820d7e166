//! The registry itself: the store, the cache over it, and the verbs that callers use.

use crate::cache::{Cache, Limits, OpenCacheError, ResourceSpec};
use crate::count::StoreObserver;
use crate::leases::SharedLeases;
use crate::services::Services;
use arc_swap::ArcSwap;
use pintle_clock::Clock;
use pintle_kinds::Table;
use pintle_store::{Store, StoreError};
use pintle_types::Status;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The ranges that the registry hands addresses and ports out of, and how much of the past it keeps.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ranges of the ServiceCIDR `kubernetes`, one for each family of addresses; the first is the usual one.
    pub service_ranges: Vec<ipnet::IpNet>,
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// How long events of the `events` resource are kept.
    pub event_ttl_seconds: u64,
    /// Recent changes kept in memory for each resource, in bytes and in number.
    pub history_bytes: usize,
    pub history_events: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            service_ranges: vec![ipnet::IpNet::new_assert([10, 43, 0, 0].into(), 16)],
            node_ports: 30000..=32767,
            event_ttl_seconds: 3600,
            history_bytes: 2 << 20,
            history_events: 4096,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("reading the store: {0}")]
    Store(#[from] StoreError),
    #[error("the store holds what is no object: {0}")]
    Damaged(String),
}

impl From<OpenCacheError> for OpenError {
    fn from(error: OpenCacheError) -> Self {
        match error {
            OpenCacheError::Store(error) => Self::Store(error),
            OpenCacheError::Entry(error) => Self::Damaged(error.to_string()),
        }
    }
}

/// What the cache must know of the stored resources of a table, by key prefix.
fn specs(table: &Table) -> BTreeMap<String, ResourceSpec> {
    let mut specs: BTreeMap<String, ResourceSpec> = BTreeMap::new();
    for def in table.iter().filter(|def| def.has_verb("list") || def.has_verb("get")) {
        let prefix = &def.storage.key_prefix;
        let new = || ResourceSpec { prefix: prefix.clone(), ..ResourceSpec::default() };
        let spec = specs.entry(prefix.clone()).or_insert_with(new);
        spec.versions.push(def.clone());
        // Versions may name fields differently; all of them are found in the stored form.
        for field in
            def.selectable_fields.iter().filter(|f| !matches!(&*f.path, "metadata.name" | "metadata.namespace"))
        {
            if !spec.selectable.iter().any(|known| known.path == field.path) {
                spec.selectable.push(field.clone());
            }
        }
        spec.indexed = spec.selectable.iter().position(|field| field.path == "spec.nodeName");
    }
    specs
}

/// Whether what is in the cache of one is right for the other.
fn is_same(a: &ResourceSpec, b: &ResourceSpec) -> bool {
    let refreshed = |spec: &ResourceSpec| spec.versions.iter().find(|def| def.strategy.refreshes()).map(Arc::as_ptr);
    refreshed(a) == refreshed(b)
        && a.selectable.iter().map(|field| &field.path).eq(b.selectable.iter().map(|field| &field.path))
}

/// The verbs over every kind. Namespace "" is cluster scope, or for reads of a namespaced kind all namespaces.
pub struct Registry {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: Cache,
    pub(crate) event_leases: SharedLeases,
    pub(crate) services: Services,
    pub(crate) observer: OnceLock<Box<StoreObserver>>,
    /// One table at a time is put into service.
    changing: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Reads the store into the cache and follows it from then on. Call within a tokio runtime.
    pub async fn open(
        store: Arc<dyn Store>,
        table: Arc<Table>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Arc<Self>, OpenError> {
        let limits = Limits { history_bytes: options.history_bytes, history_events: options.history_events };
        let cache = Cache::open(store.clone(), specs(&table).into_values().collect(), limits).await?;
        let present = cache.shared.resource("/registry/services/specs").map(|services| services.snapshot());
        let present = present.unwrap_or_default();
        let services = Services::new(options.service_ranges, options.node_ports, &present);
        services.claim_present(&*store, &present, &clock.now_seconds().to_string()).await?;
        let event_leases = SharedLeases::new(options.event_ttl_seconds);
        let (table, changing) = (ArcSwap::new(table), tokio::sync::Mutex::default());
        let observer = OnceLock::new();
        Ok(Arc::new(Self { store, table, clock, cache, event_leases, services, observer, changing }))
    }

    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Serves another table: called when custom resource definitions come and go. When it returns, the objects of new
    /// resources are in the cache.
    pub async fn set_table(&self, table: Arc<Table>) -> Result<(), Status> {
        let _one_at_a_time = self.changing.lock().await;
        let (old, new) = (specs(&self.table.load()), specs(&table));
        for (prefix, spec) in &new {
            if old.get(prefix).is_none_or(|before| !is_same(before, spec)) {
                self.cache.shared.add(spec.clone()).await.map_err(Status::internal)?;
            }
        }
        self.table.store(table);
        for prefix in old.keys().filter(|prefix| !new.contains_key(*prefix)) {
            self.cache.shared.remove(prefix);
        }
        Ok(())
    }
}
