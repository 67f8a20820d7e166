//! One resource of the cache: its snapshot, its recent changes, and those who watch it.

use super::entry::{Entry, EntryError, Fields};
use super::foreign;
use super::hub::Hub;
use super::pick::Wanted;
use super::snapshot::Snapshot;
use super::{Limits, watch::Selection};
use crate::object::{EventKind, Object, SharedFrames, WatchEvent};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pintle_kinds::{ResourceDef, SelectableField};
use pintle_store::{Event, KeyValue, Revision};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What the cache must know of a resource.
#[derive(Clone, Default)]
pub(crate) struct ResourceSpec {
    /// Begins the keys of its objects, without a slash at the end.
    pub prefix: String,
    /// Beyond name and namespace.
    pub selectable: Vec<SelectableField>,
    /// Which of the selectable fields watchers are found by.
    pub indexed: Option<usize>,
    /// All the versions whose objects are stored here.
    pub versions: Vec<Arc<ResourceDef>>,
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub revision: Revision,
    pub old: Option<Arc<Entry>>,
    pub new: Option<Arc<Entry>>,
    /// The old object under the revision of the change, as deletions show it.
    gone: OnceLock<Arc<Entry>>,
}

/// What is written out for the watchers of one change, shared by those that it is sent to at once. The change itself
/// keeps none of it: it stays in memory for long, and few begin in the past.
#[derive(Default)]
pub(crate) struct Frames {
    added: Option<Arc<SharedFrames>>,
    modified: Option<Arc<SharedFrames>>,
    deleted: Option<Arc<SharedFrames>>,
}

impl Change {
    fn new(revision: Revision, old: Option<Arc<Entry>>, new: Option<Arc<Entry>>) -> Self {
        Self { revision, old, new, gone: OnceLock::new() }
    }

    /// The event that a watcher sees of the change: an object that begins to match is added, one that no longer does
    /// is deleted.
    pub(crate) fn event(&self, selection: &Selection, frames: &mut Frames) -> Option<WatchEvent> {
        let before = self.old.as_ref().is_some_and(|old| selection.matches(old));
        let after = self.new.as_ref().filter(|new| selection.matches(new));
        let (kind, entry, frame) = match (before, after) {
            (false, None) => return None,
            (false, Some(new)) => (EventKind::Added, new.clone(), &mut frames.added),
            (true, Some(new)) => (EventKind::Modified, new.clone(), &mut frames.modified),
            (true, None) => (EventKind::Deleted, self.gone()?, &mut frames.deleted),
        };
        Some(WatchEvent { kind, object: Object::Stored(entry), frame: frame.get_or_insert_default().clone() })
    }

    fn gone(&self) -> Option<Arc<Entry>> {
        let old = self.old.as_ref()?;
        Some(self.gone.get_or_init(|| Arc::new(old.at_revision(self.revision))).clone())
    }

    fn key(&self) -> &[u8] {
        self.new.as_ref().or(self.old.as_ref()).map_or(&[], |entry| entry.key())
    }

    fn weight(&self) -> usize {
        self.old.as_ref().map_or(0, |old| old.weight()) + self.new.as_ref().map_or(0, |new| new.weight()) + 256
    }
}

/// The past is not in memory (any more).
#[derive(Debug)]
pub(crate) struct PastError;

/// What changes together, under one lock.
struct Live {
    /// The last changes, the oldest first, without a gap.
    recent: VecDeque<Arc<Change>>,
    /// All changes after this revision are in `recent`.
    complete_after: Revision,
    weight: usize,
    hub: Hub,
    /// Changes that came before the resource was loaded; nothing once it is.
    early: Option<Vec<(Revision, Vec<Event>)>>,
}

pub(crate) struct Resource {
    pub spec: ResourceSpec,
    wanted: Wanted,
    snapshot: ArcSwap<Snapshot>,
    live: Mutex<Live>,
    limits: Limits,
    /// Changes that watchers were offered.
    dispatched: AtomicU64,
}

impl Resource {
    pub(super) fn new(spec: ResourceSpec, limits: Limits) -> Self {
        let hub = Hub::default();
        let live = Live { recent: VecDeque::new(), complete_after: 0, weight: 0, hub, early: None };
        let wanted = Wanted::of(&spec.selectable);
        Self {
            spec,
            wanted,
            snapshot: ArcSwap::default(),
            live: Mutex::new(live),
            limits,
            dispatched: AtomicU64::new(0),
        }
    }

    /// How many changes watchers were offered since the start, however many there were.
    pub(crate) fn dispatched(&self) -> u64 {
        self.dispatched.load(Ordering::Relaxed)
    }

    /// Shows what another resource in its place knew until it is loaded.
    pub(super) fn show_meanwhile(&self, before: &Self) {
        self.snapshot.store(before.snapshot());
    }

    /// A resource whose changes are kept aside until [`Resource::reset`].
    pub(super) fn loading(spec: ResourceSpec, limits: Limits) -> Self {
        let resource = Self::new(spec, limits);
        resource.live.lock().early = Some(Vec::new());
        resource
    }

    /// Makes an entry of a stored value, parsing it unless its fields are known.
    pub(super) fn entry(&self, kv: &KeyValue, fields: Option<Fields>) -> Result<Entry, EntryError> {
        if let Some(fields) = fields {
            return Entry::new(kv, self.spec.prefix.len(), fields);
        }
        let kv = foreign::canonical(kv, &self.spec.versions)?;
        let kv = refreshed(&self.spec.versions, kv);
        let fields = Fields::parse(&kv, &self.spec.selectable, &self.wanted)?;
        Entry::new(&kv, self.spec.prefix.len(), fields)
    }

    /// The objects as they are now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Replaces everything by what the store holds at a revision. Watchers see what changed, but nobody can start from
    /// an older revision any more.
    pub(super) fn reset(&self, entries: Vec<Arc<Entry>>, revision: Revision) {
        let new = Snapshot::new(revision, entries);
        let mut live = self.live.lock();
        let old = self.snapshot.load_full();
        let gone = old.iter().filter(|entry| new.get(entry.key()).is_none());
        let gone: Vec<Change> = gone.map(|entry| Change::new(revision, Some(entry.clone()), None)).collect();
        let changed = new.iter().filter_map(|entry| {
            let before = old.get(entry.key()).cloned();
            let same = before.as_ref().is_some_and(|before| before.revision() == entry.revision());
            (!same).then(|| Change::new(entry.revision(), before, Some(entry.clone())))
        });
        let changes: Vec<Arc<Change>> = gone.into_iter().chain(changed).map(Arc::new).collect();
        live.recent.clear();
        (live.weight, live.complete_after) = (0, revision);
        self.snapshot.store(Arc::new(new));
        self.dispatched.fetch_add(changes.len() as u64, Ordering::Relaxed);
        for change in &changes {
            live.hub.send(change, self.spec.indexed);
        }
        for (at, events) in live.early.take().unwrap_or_default() {
            if at > revision {
                self.apply_locked(&mut live, at, &events, |_| None);
            }
        }
    }

    /// Applies the changes of one revision.
    pub(super) fn apply(
        &self,
        revision: Revision,
        events: Vec<Event>,
        fields: impl FnMut(&KeyValue) -> Option<Fields>,
    ) {
        let mut live = self.live.lock();
        match &mut live.early {
            Some(early) => early.push((revision, events)),
            None => self.apply_locked(&mut live, revision, &events, fields),
        }
    }

    fn apply_locked(
        &self,
        live: &mut Live,
        revision: Revision,
        events: &[Event],
        mut fields: impl FnMut(&KeyValue) -> Option<Fields>,
    ) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        if revision <= snapshot.revision {
            return;
        }
        snapshot.revision = revision;
        let mut changes = Vec::with_capacity(events.len());
        for event in events {
            let (old, new) = match event {
                Event::Delete { kv, .. } => (snapshot.remove(&kv.key), None),
                Event::Put { kv, .. } => match self.entry(kv, fields(kv)) {
                    Ok(entry) => {
                        let entry = Arc::new(entry);
                        (snapshot.insert(entry.clone()), Some(entry))
                    }
                    Err(error) => {
                        tracing::error!(%error, "a stored object cannot be read; it is left out");
                        (snapshot.remove(&kv.key), None)
                    }
                },
            };
            if old.is_some() || new.is_some() {
                changes.push(Arc::new(Change::new(revision, old, new)));
            }
        }
        self.snapshot.store(Arc::new(snapshot));
        self.dispatched.fetch_add(changes.len() as u64, Ordering::Relaxed);
        for change in changes {
            live.hub.send(&change, self.spec.indexed);
            live.weight += change.weight();
            live.recent.push_back(change);
        }
        self.trim(live);
    }

    /// Forgets the oldest changes, whole revisions at a time.
    fn trim(&self, live: &mut Live) {
        while live.weight > self.limits.history_bytes || live.recent.len() > self.limits.history_events {
            let Some(revision) = live.recent.front().map(|change| change.revision) else { return };
            if live.recent.back().is_some_and(|newest| newest.revision == revision) {
                return;
            }
            while live.recent.front().is_some_and(|change| change.revision == revision) {
                live.weight -= live.recent.pop_front().map_or(0, |oldest| oldest.weight());
            }
            live.complete_after = revision;
        }
    }

    /// The objects as they were at a revision, worked back from now.
    pub(crate) fn at(&self, revision: Revision) -> Result<Arc<Snapshot>, PastError> {
        let live = self.live.lock();
        let now = self.snapshot.load_full();
        if revision >= now.revision {
            return Ok(now);
        }
        if revision < live.complete_after {
            return Err(PastError);
        }
        let mut past = Snapshot::clone(&now);
        for change in live.recent.iter().rev().take_while(|change| change.revision > revision) {
            match &change.old {
                Some(old) => drop(past.insert(old.clone())),
                None => drop(past.remove(change.key())),
            }
        }
        past.revision = revision;
        Ok(Arc::new(past))
    }

    /// The revision after which a watch can start at the earliest.
    pub(crate) fn oldest_start(&self) -> Revision {
        self.live.lock().complete_after
    }

    /// A snapshot of what the store held at a past revision.
    pub(crate) fn read_past(&self, revision: Revision, kvs: &[KeyValue]) -> Snapshot {
        let entries = kvs.iter().filter_map(|kv| match self.entry(kv, None) {
            Ok(entry) => Some(Arc::new(entry)),
            Err(error) => {
                tracing::error!(%error, "a stored object cannot be read; it is left out");
                None
            }
        });
        Snapshot::new(revision, entries.collect())
    }

    /// Registers a watcher and says what it has to see first, in one step, so that nothing is missed in between.
    pub(super) fn register<T>(&self, start: impl FnOnce(&mut Hub, &Snapshot, Recent<'_>) -> T) -> T {
        let mut live = self.live.lock();
        let snapshot = self.snapshot.load_full();
        let live = &mut *live;
        let recent = Recent { changes: &live.recent, complete_after: live.complete_after };
        start(&mut live.hub, &snapshot, recent)
    }

    pub(super) fn unregister(&self, id: u64) {
        self.live.lock().hub.remove(id);
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        self.live.lock().hub = Hub::default();
    }
}

/// A stored value in line with the schema of now.
fn refreshed<'a>(versions: &[Arc<ResourceDef>], kv: Cow<'a, KeyValue>) -> Cow<'a, KeyValue> {
    let Some(def) = versions.iter().find(|def| def.strategy.refreshes()) else { return kv };
    let Ok(mut value) = serde_json::from_slice(&kv.value) else { return kv };
    if !def.strategy.refresh(&mut value) {
        return kv;
    }
    Cow::Owned(KeyValue { value: crate::codec::to_stored(&value), ..kv.into_owned() })
}

/// The recent changes, for a watcher that starts in the past.
pub(super) struct Recent<'a> {
    changes: &'a VecDeque<Arc<Change>>,
    complete_after: Revision,
}

impl Recent<'_> {
    /// The changes after a revision.
    pub(super) fn after(&self, revision: Revision) -> Result<Vec<Arc<Change>>, PastError> {
        if revision < self.complete_after {
            return Err(PastError);
        }
        let start = self.changes.partition_point(|change| change.revision <= revision);
        Ok(self.changes.range(start..).cloned().collect())
    }
}
