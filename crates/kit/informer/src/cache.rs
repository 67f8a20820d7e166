//! The local copy of the objects of one kind, with its indexes and the handlers that hear of every change.

use crate::reflector::Sink;
use crate::slim::without_managed_fields;
use parking_lot::{Mutex, RwLock};
use pintle_client::{EventType, RawEvent};
use pintle_types::{Kind, ObjectKey};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What happened to an object.
#[derive(Clone, Debug)]
pub enum Change<K> {
    Added(Arc<K>),
    /// The state before, and the state now.
    Modified(Arc<K>, Arc<K>),
    /// With the last state that was seen.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest state that is known.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Modified(_, object) | Self::Deleted(object) => object,
        }
    }

    /// The state before the change.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(_) => None,
            Self::Modified(old, _) | Self::Deleted(old) => Some(old),
        }
    }

    /// The state after the change.
    #[expect(clippy::new_ret_no_self, reason = "the new state, beside the old")]
    pub fn new(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(new) | Self::Modified(_, new) => Some(new),
            Self::Deleted(_) => None,
        }
    }
}

type Bucket<K> = BTreeMap<Arc<ObjectKey>, Arc<K>>;

struct Index<K> {
    values: fn(&K) -> Vec<String>,
    buckets: HashMap<String, Bucket<K>>,
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Arc<ObjectKey>, object: &Arc<K>) {
        for value in (self.values)(object) {
            self.buckets.entry(value).or_default().insert(Arc::clone(key), Arc::clone(object));
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            if let Some(bucket) = self.buckets.get_mut(&value) {
                bucket.remove(key);
                if bucket.is_empty() {
                    self.buckets.remove(&value);
                }
            }
        }
    }
}

struct Objects<K> {
    all: Bucket<K>,
    indexes: HashMap<&'static str, Index<K>>,
}

impl<K> Objects<K> {
    fn put(&mut self, key: ObjectKey, object: &Arc<K>) -> Option<Arc<K>> {
        let shared = self.all.get_key_value(&key).map(|(shared, _)| Arc::clone(shared));
        let key = shared.unwrap_or_else(|| Arc::new(key));
        let old = self.all.insert(Arc::clone(&key), Arc::clone(object));
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, object);
        }
        old
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.all.remove(key)?;
        for index in self.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// Readers take `objects` for a moment; writers hold `dispatch` from the change until every handler has heard of
/// it, so handlers hear of changes in order and may read the cache.
pub(crate) struct Cache<K> {
    objects: RwLock<Objects<K>>,
    dispatch: Mutex<Dispatch<K>>,
    synced: tokio::sync::watch::Sender<bool>,
}

struct Dispatch<K> {
    handlers: Vec<Handler<K>>,
    /// The objects of a list that is being read.
    listed: Vec<Arc<K>>,
}

impl<K: Kind> Cache<K> {
    pub fn new() -> Self {
        Self {
            objects: RwLock::new(Objects { all: BTreeMap::new(), indexes: HashMap::new() }),
            dispatch: Mutex::new(Dispatch { handlers: Vec::new(), listed: Vec::new() }),
            synced: tokio::sync::watch::Sender::new(false),
        }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.read().all.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects.read().all.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.objects.read().all.len()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read();
        let from = objects.all.range(ObjectKey::new(namespace, "")..);
        from.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    pub fn index(&self, name: &'static str, values: fn(&K) -> Vec<String>) {
        let mut objects = self.objects.write();
        if objects.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values, buckets: HashMap::new() };
        for (key, object) in &objects.all {
            index.insert(key, object);
        }
        objects.indexes.insert(name, index);
    }

    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read();
        let Some(index) = objects.indexes.get(name) else {
            tracing::error!(kind = K::KIND, index = name, "asked for an index that was never made");
            return Vec::new();
        };
        index.buckets.get(value).map(|bucket| bucket.values().cloned().collect()).unwrap_or_default()
    }

    pub fn on_change(&self, handler: Handler<K>) {
        let mut dispatch = self.dispatch.lock();
        for object in self.list() {
            handler(&Change::Added(object));
        }
        dispatch.handlers.push(handler);
    }

    pub fn synced(&self) -> tokio::sync::watch::Receiver<bool> {
        self.synced.subscribe()
    }

    fn decode(&self, bytes: &[u8]) -> Option<Arc<K>> {
        match K::decode(&without_managed_fields(bytes)) {
            Ok(mut object) => {
                object.metadata_mut().managed_fields = None;
                Some(Arc::new(object))
            }
            Err(error) => {
                tracing::error!(%error, "an object is left out of the cache");
                None
            }
        }
    }

    fn put(&self, dispatch: &Dispatch<K>, object: Arc<K>) {
        let old = self.objects.write().put(object.key(), &object);
        dispatch.tell(&match old {
            Some(old) => Change::Modified(old, object),
            None => Change::Added(object),
        });
    }

    /// Takes over a complete list: tells only what differs from the cache.
    fn replace(&self, dispatch: &mut Dispatch<K>) {
        let listed = std::mem::take(&mut dispatch.listed);
        let present: HashSet<ObjectKey> = listed.iter().map(|object| object.key()).collect();
        let gone: Vec<Arc<ObjectKey>> =
            self.objects.read().all.keys().filter(|key| !present.contains(key.as_ref())).cloned().collect();
        for key in gone {
            self.remove(dispatch, &key);
        }
        for object in listed {
            let cached = self.get(&object.key());
            let Some(cached) = cached else {
                self.put(dispatch, object);
                continue;
            };
            if cached.uid() != object.uid() {
                self.remove(dispatch, &object.key());
                self.put(dispatch, object);
            } else if cached.metadata().resource_version != object.metadata().resource_version {
                self.put(dispatch, object);
            }
        }
    }

    fn remove(&self, dispatch: &Dispatch<K>, key: &ObjectKey) {
        let old = self.objects.write().take(key);
        if let Some(old) = old {
            dispatch.tell(&Change::Deleted(old));
        }
    }
}

impl<K: Kind> Dispatch<K> {
    fn tell(&self, change: &Change<K>) {
        for handler in &self.handlers {
            handler(change);
        }
    }
}

impl<K: Kind> Sink for Cache<K> {
    fn list_begins(&self) {
        self.dispatch.lock().listed.clear();
    }

    fn listed(&self, object: &[u8]) {
        if let Some(object) = self.decode(object) {
            self.dispatch.lock().listed.push(object);
        }
    }

    fn list_ends(&self) {
        self.replace(&mut self.dispatch.lock());
        self.synced.send_replace(true);
    }

    fn event(&self, event: &RawEvent) -> Option<String> {
        if event.event_type == EventType::Bookmark {
            return event.resource_version().ok();
        }
        let Some(object) = self.decode(&event.object) else { return event.resource_version().ok() };
        let version = object.metadata().resource_version.clone();
        let dispatch = self.dispatch.lock();
        if event.event_type == EventType::Deleted {
            self.remove(&dispatch, &object.key());
        } else {
            self.put(&dispatch, object);
        }
        version
    }
}
