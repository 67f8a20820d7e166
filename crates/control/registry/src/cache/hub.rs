//! Who watches a resource, found by what a change is about: a watcher that cannot match costs nothing.

use super::entry::Entry as CacheEntry;
use super::resource::{Change, Frames};
use super::watch::Selection;
use crate::object::WatchEvent;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What all the objects that a watcher wants have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Interest {
    Everything,
    Namespace(Box<str>),
    /// The whole key.
    Key(Box<[u8]>),
    /// The value of the resource's indexed field.
    Field(Box<str>),
}

struct Watcher {
    id: u64,
    selection: Arc<Selection>,
    events: mpsc::Sender<WatchEvent>,
}

/// The watchers of one resource.
#[derive(Default)]
pub(super) struct Hub {
    /// Each watcher is in one list, in the order of their numbers.
    by_interest: HashMap<Interest, Vec<Watcher>>,
    interests: HashMap<u64, Interest>,
    next_id: u64,
}

impl Hub {
    pub(super) fn add(
        &mut self,
        interest: Interest,
        selection: Arc<Selection>,
        events: mpsc::Sender<WatchEvent>,
    ) -> u64 {
        self.next_id += 1;
        let watcher = Watcher { id: self.next_id, selection, events };
        self.by_interest.entry(interest.clone()).or_default().push(watcher);
        self.interests.insert(self.next_id, interest);
        self.next_id
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(interest) = self.interests.remove(&id) else { return };
        let Entry::Occupied(mut watchers) = self.by_interest.entry(interest) else { return };
        if let Ok(at) = watchers.get().binary_search_by_key(&id, |watcher| watcher.id) {
            watchers.get_mut().remove(at);
        }
        if watchers.get().is_empty() {
            watchers.remove();
        }
    }

    /// Sends a change to all that it concerns. A watcher whose queue is full is let go: it comes back and replays.
    // flow: pod 4/16
    pub(super) fn send(&mut self, change: &Change, indexed: Option<usize>) {
        if self.interests.is_empty() {
            return;
        }
        let (mut slow, mut frames) = (Vec::new(), Frames::default());
        // No two of the interests are the same, so nobody hears twice.
        for interest in interests(change, indexed) {
            for watcher in self.by_interest.get(&interest).into_iter().flatten() {
                let Some(event) = change.event(&watcher.selection, &mut frames) else { continue };
                if watcher.events.try_send(event).is_err() {
                    slow.push(watcher.id);
                }
            }
        }
        for id in slow {
            self.remove(id);
        }
    }
}

/// Under which interests a change is found.
fn interests(change: &Change, indexed: Option<usize>) -> Vec<Interest> {
    let field = |entry: &Arc<CacheEntry>| entry.fields.selected.get(indexed?).map(Box::from);
    let (old, new) = (change.old.as_ref(), change.new.as_ref());
    let mut found = vec![Interest::Everything];
    if let Some(entry) = new.or(old) {
        found.push(Interest::Namespace(entry.namespace().into()));
        found.push(Interest::Key(entry.key().into()));
    }
    let (before, after) = (old.and_then(field), new.and_then(field));
    if before != after {
        found.extend(before.map(Interest::Field));
    }
    found.extend(after.map(Interest::Field));
    found
}
