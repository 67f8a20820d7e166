//! Follows one kind of object and keeps, of what changed, only the facts, until they are taken.

use crate::facts::RawMeta;
use pintle_client::{EventType, RawEvent};
use pintle_informer::Sink;
use pintle_types::ObjectKey;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What one object says: its metadata, and its facts if it counts.
pub(crate) type Decode<T> = Box<dyn Fn(&[u8]) -> serde_json::Result<(RawMeta, Option<T>)> + Send + Sync>;

/// One changed object: its uid, and its facts while it counts.
#[derive(Clone, Debug)]
pub(crate) struct Changed<T> {
    pub(crate) uid: String,
    pub(crate) facts: Option<T>,
}

/// The sink of a watch. Facts of objects that did not change are kept by whoever took them.
pub(crate) struct Feed<T> {
    what: &'static str,
    decode: Decode<T>,
    wake: Arc<Notify>,
    state: Mutex<State<T>>,
}

struct State<T> {
    known: HashSet<ObjectKey>,
    listed: HashMap<ObjectKey, Changed<T>>,
    changes: HashMap<ObjectKey, Changed<T>>,
    is_synced: bool,
}

impl<T: Send + 'static> Feed<T> {
    pub(crate) fn new(what: &'static str, wake: Arc<Notify>, decode: Decode<T>) -> Arc<Self> {
        let state = State { known: HashSet::new(), listed: HashMap::new(), changes: HashMap::new(), is_synced: false };
        Arc::new(Self { what, decode, wake, state: Mutex::new(state) })
    }

    /// Whether the first list was read.
    pub(crate) fn is_synced(&self) -> bool {
        self.state().is_synced
    }

    /// What changed since it was asked last.
    pub(crate) fn take(&self) -> HashMap<ObjectKey, Changed<T>> {
        std::mem::take(&mut self.state().changes)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, object: &[u8]) -> Option<(ObjectKey, Changed<T>, String)> {
        match (self.decode)(object) {
            Ok((meta, facts)) => {
                let key = ObjectKey::new(meta.namespace, meta.name);
                Some((key, Changed { uid: meta.uid, facts }, meta.resource_version))
            }
            Err(error) => {
                tracing::error!(what = self.what, %error, "an object can't be read; it is passed over");
                None
            }
        }
    }
}

impl<T: Send + 'static> Sink for Feed<T> {
    fn list_begins(&self) {
        self.state().listed.clear();
    }

    fn listed(&self, object: &[u8]) {
        if let Some((key, changed, _)) = self.read(object) {
            self.state().listed.insert(key, changed);
        }
    }

    fn list_ends(&self) {
        let state = &mut *self.state();
        let listed = std::mem::take(&mut state.listed);
        let gone = state.known.iter().filter(|key| !listed.contains_key(*key)).cloned();
        state.changes.extend(gone.map(|key| (key, Changed { uid: String::new(), facts: None })));
        state.known = listed.keys().cloned().collect();
        state.changes.extend(listed);
        state.is_synced = true;
        self.wake.notify_one();
    }

    fn event(&self, event: &RawEvent) -> Option<String> {
        if event.event_type == EventType::Bookmark {
            return event.resource_version().ok();
        }
        let Some((key, mut changed, version)) = self.read(&event.object) else {
            return event.resource_version().ok();
        };
        let mut state = self.state();
        if event.event_type == EventType::Deleted {
            state.known.remove(&key);
            changed.facts = None;
        } else {
            state.known.insert(key.clone());
        }
        state.changes.insert(key, changed);
        self.wake.notify_one();
        Some(version)
    }
}
