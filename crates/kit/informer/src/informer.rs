//! The informers of a process: at most one per kind and selector, started when first asked for.

use crate::cache::{Cache, Change};
use crate::reflector::{Source, reflect};
use parking_lot::Mutex;
use pintle_client::{Client, resource_path};
use pintle_types::{Kind, ObjectKey};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Which objects of a kind an informer holds; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Empty for all namespaces.
    pub namespace: String,
    /// In query form.
    pub labels: String,
    /// In query form.
    pub fields: String,
}

impl Selector {
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: selector.into(), ..Self::default() }
    }

    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: selector.into(), ..Self::default() }
    }

    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), ..Self::default() }
    }
}

/// All informers of a process. Cheap to clone; needs a tokio runtime.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    stop: CancellationToken,
    running: Mutex<HashMap<(TypeId, Selector), Box<dyn Any + Send>>>,
}

impl Informers {
    /// Informers that read through `client` until `stop`.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Self { shared: Arc::new(Shared { client, stop, running: Mutex::new(HashMap::new()) }) }
    }

    /// The informer of all objects of a kind.
    pub fn of<K: Kind>(&self) -> Informer<K> {
        self.selected(Selector::default())
    }

    /// The informer of the objects that a selector picks.
    pub fn selected<K: Kind>(&self, selector: Selector) -> Informer<K> {
        let mut running = self.shared.running.lock();
        let key = (TypeId::of::<K>(), selector);
        if let Some(found) = running.get(&key).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return found.clone();
        }
        let informer = Informer { cache: Arc::new(Cache::new()), stop: self.shared.stop.clone() };
        let selector = &key.1;
        let namespace = if K::NAMESPACED { selector.namespace.as_str() } else { "" };
        let source = Source {
            path: resource_path(K::GROUP, K::VERSION, K::plural(), namespace, "", ""),
            accept: "application/json".into(),
            watch_accept: "application/json".into(),
            label_selector: selector.labels.clone(),
            field_selector: selector.fields.clone(),
        };
        tokio::spawn(reflect(self.shared.client.clone(), source, informer.cache.clone(), self.shared.stop.clone()));
        running.insert(key, Box::new(informer.clone()));
        informer
    }
}

/// The local copy of the objects of a kind, kept by a watch. Cheap to clone.
pub struct Informer<K> {
    cache: Arc<Cache<K>>,
    stop: CancellationToken,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { cache: Arc::clone(&self.cache), stop: self.stop.clone() }
    }
}

impl<K: Kind> Informer<K> {
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.cache.get(key)
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.cache.list()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.cache.in_namespace(namespace)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps an index from now on: the function tells the values under which an object is found. An index of that
    /// name that exists is kept as it is, so a name must mean the same to all who use it.
    pub fn index(&self, name: &'static str, values: fn(&K) -> Vec<String>) {
        self.cache.index(name, values);
    }

    /// The objects that an index holds under a value, ordered by key.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.cache.by_index(name, value)
    }

    /// Calls the handler for every object there is (as `Added`), then for every change, in order. The handler is
    /// called inside the watch: it may read informers and fill queues, and must not block or add handlers.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.cache.on_change(Box::new(handler));
    }

    /// Whether the first list was read.
    pub fn is_synced(&self) -> bool {
        *self.cache.synced().borrow()
    }

    /// Waits until the first list was read, or until the informers stop.
    pub async fn synced(&self) {
        let mut synced = self.cache.synced();
        tokio::select! {
            // The sender lives in the cache that this informer holds.
            _ = synced.wait_for(|synced| *synced) => (),
            () = self.stop.cancelled() => (),
        }
    }
}
