//! The watch cache: what every resource's objects are, and how they came to be so lately.
//!
//! ```text
//! store ──one watch──▶ feed ─▶ resource (snapshot, recent changes) ─▶ watchers, found through an index
//! ```
//!
//! A resource's snapshot is immutable and replaced as a whole; its entries share their bytes with the store. The cache
//! follows the store's revisions: a reader that needs a revision waits until the cache has come to it.

mod entry;
mod feed;
mod foreign;
mod hub;
mod pick;
mod resource;
mod snapshot;
mod texts;
mod watch;

pub use entry::Entry;
pub(crate) use entry::{EntryError, Fields};
pub(crate) use resource::{Resource, ResourceSpec};
pub(crate) use snapshot::Snapshot;
pub(crate) use watch::{CacheWatch, FieldPlace, Selection, WatchPlan, WatchStart};

use bytes::Bytes;
use feed::Feed;
use parking_lot::{Mutex, RwLock};
use pintle_store::{KeyRange, KeyValue, RangeRequest, Revision, Store, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as signal;

/// All keys of objects begin with this.
pub(crate) const ROOT: &str = "/registry/";

/// How long a reader waits for the cache to come to a revision.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// How long a change may take to come by before the store is asked how far its watches are.
const ASK_PROGRESS: Duration = Duration::from_millis(50);

/// Keys read from the store in one step.
const PAGE: usize = 2000;

/// How much of the past each resource keeps in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub history_bytes: usize,
    pub history_events: usize,
}

/// What readers and the feed share.
pub(crate) struct Shared {
    store: Arc<dyn Store>,
    /// By key prefix, without the slash at the end.
    resources: RwLock<HashMap<String, Arc<Resource>>>,
    /// The revision up to which everything is in the cache.
    reached: signal::Sender<Revision>,
    /// Selector fields of values that are on their way through the store, by the address of the value: the store hands
    /// the same bytes back, and parsing them again is saved.
    parsed: Mutex<HashMap<usize, (Bytes, Fields)>>,
    limits: Limits,
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.shared.all().iter().for_each(|resource| resource.close());
    }
}

/// The cache of all resources. Watches end with it.
pub(crate) struct Cache {
    pub shared: Arc<Shared>,
    _feed: Feed,
}

impl Cache {
    /// Loads the given resources from the store and follows it.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        specs: Vec<ResourceSpec>,
        limits: Limits,
    ) -> Result<Self, OpenCacheError> {
        let revision = store.revision().await?;
        let (reached, _) = signal::channel(revision);
        let resources = specs.into_iter().map(|spec| (spec.prefix.clone(), Arc::new(Resource::new(spec, limits))));
        let resources = RwLock::new(resources.collect());
        let shared = Arc::new(Shared { store, resources, reached, parsed: Mutex::default(), limits });
        shared.load(revision).await?;
        let feed = Feed::start(&shared, revision + 1).await?;
        Ok(Self { shared, _feed: feed })
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenCacheError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl Shared {
    /// All key-values below a prefix at a revision, page by page.
    async fn read_all(
        &self,
        prefix: &str,
        at: Revision,
        mut each: impl FnMut(KeyValue) -> Result<(), EntryError>,
    ) -> Result<(), OpenCacheError> {
        let mut range = KeyRange::prefix(prefix.to_owned());
        loop {
            let request = RangeRequest { range: range.clone(), at: Some(at), limit: PAGE };
            let page = self.store.range(request).await?;
            let last = page.kvs.last().map(|kv| kv.key.clone());
            let whole = page.count <= page.kvs.len();
            page.kvs.into_iter().try_for_each(&mut each)?;
            match last {
                Some(last) if !whole => range.start = after(&last),
                _ => return Ok(()),
            }
        }
    }

    /// Fills all resources with their state at a revision.
    async fn load(&self, revision: Revision) -> Result<(), OpenCacheError> {
        let mut entries: HashMap<String, Vec<Arc<Entry>>> = HashMap::new();
        self.read_all(ROOT, revision, |kv| {
            if let Some(resource) = self.route(&kv.key) {
                let entry = Arc::new(resource.entry(&kv, None)?);
                entries.entry(resource.spec.prefix.clone()).or_default().push(entry);
            }
            Ok(())
        })
        .await?;
        for resource in self.all() {
            resource.reset(entries.remove(&resource.spec.prefix).unwrap_or_default(), revision);
        }
        Ok(())
    }

    /// Begins to serve resources, or serves them anew when what is selectable changed. Their objects are in the cache
    /// when it returns.
    pub(crate) async fn add(&self, spec: ResourceSpec) -> Result<(), OpenCacheError> {
        let resource = Arc::new(Resource::loading(spec, self.limits));
        let prefix = resource.spec.prefix.clone();
        // From here on the feed brings changes, which the resource keeps aside until it is loaded.
        let before = self.resources.write().insert(prefix.clone(), resource.clone());
        if let Some(before) = before {
            resource.show_meanwhile(&before);
            before.close();
        }
        let revision = self.store.revision().await?;
        let mut entries = Vec::new();
        self.read_all(&format!("{prefix}/"), revision, |kv| {
            entries.push(Arc::new(resource.entry(&kv, None)?));
            Ok(())
        })
        .await?;
        resource.reset(entries, revision);
        Ok(())
    }

    /// Stops serving a resource; its watches end.
    pub(crate) fn remove(&self, prefix: &str) {
        if let Some(resource) = self.resources.write().remove(prefix) {
            resource.close();
        }
    }

    pub(crate) fn resource(&self, prefix: &str) -> Option<Arc<Resource>> {
        self.resources.read().get(prefix).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Resource>> {
        self.resources.read().values().cloned().collect()
    }

    /// The resource that a key belongs to. Prefixes have one or two segments after the root.
    fn route(&self, key: &[u8]) -> Option<Arc<Resource>> {
        let key = std::str::from_utf8(key).ok()?;
        let slash = |from: usize| key[from..].find('/').map(|at| from + at);
        let first = slash(ROOT.len())?;
        let resources = self.resources.read();
        let two = slash(first + 1).and_then(|second| resources.get(&key[..second]));
        two.or_else(|| resources.get(&key[..first])).cloned()
    }

    /// The revision that the cache has come to.
    pub(crate) fn reached(&self) -> Revision {
        *self.reached.borrow()
    }

    /// Waits until the cache has come to a revision; false when it does not within [`PATIENCE`].
    pub(crate) async fn wait_for(&self, revision: Revision) -> bool {
        let mut reached = self.reached.subscribe();
        let waiting = async {
            loop {
                match tokio::time::timeout(ASK_PROGRESS, reached.wait_for(|reached| *reached >= revision)).await {
                    Ok(outcome) => return outcome.is_ok(),
                    // Nothing of ours may have changed since: then only the store knows that the cache is there.
                    Err(_) => self.store.request_progress(),
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or(false)
    }

    /// A stored value in the form in which the cache keeps values.
    pub(crate) fn canonical(&self, kv: KeyValue) -> Result<KeyValue, EntryError> {
        let Some(resource) = self.route(&kv.key) else { return Ok(kv) };
        foreign::canonical(&kv, &resource.spec.versions).map(std::borrow::Cow::into_owned)
    }

    /// Remembers the fields of a value that is about to be written; forgets them when the guard goes before the value
    /// was written.
    pub(crate) fn expect(self: &Arc<Self>, value: &Bytes, fields: Fields) -> Expected {
        let address = value.as_ptr() as usize;
        self.parsed.lock().insert(address, (value.clone(), fields));
        Expected { shared: self.clone(), address, written: false }
    }

    fn take_parsed(&self, value: &Bytes) -> Option<Fields> {
        let mut parsed = self.parsed.lock();
        let address = value.as_ptr() as usize;
        // The remembered value is alive, so another one cannot have its address; only a part of it could.
        (parsed.get(&address)?.0.len() == value.len()).then(|| parsed.remove(&address))?.map(|(_, fields)| fields)
    }
}

/// A value on its way through the store.
pub(crate) struct Expected {
    shared: Arc<Shared>,
    address: usize,
    written: bool,
}

impl Expected {
    /// The value is in the store: the feed will come by and take the fields.
    pub(crate) fn written(mut self) {
        self.written = true;
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if !self.written {
            self.shared.parsed.lock().remove(&self.address);
        }
    }
}

/// The first key after another one.
pub(crate) fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
