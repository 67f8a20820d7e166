//! Who watches a resource, found by what a change is about: a watcher that cannot match costs nothing.

use super::entry::Entry;
use super::resource::Change;
use super::watch::Selection;
use crate::object::WatchEvent;
use std::collections::{HashMap, HashSet};
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
    interest: Interest,
    selection: Arc<Selection>,
    events: mpsc::Sender<WatchEvent>,
}

/// The watchers of one resource.
#[derive(Default)]
pub(super) struct Hub {
    watchers: HashMap<u64, Watcher>,
    by_interest: HashMap<Interest, HashSet<u64>>,
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
        self.by_interest.entry(interest.clone()).or_default().insert(self.next_id);
        self.watchers.insert(self.next_id, Watcher { interest, selection, events });
        self.next_id
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(watcher) = self.watchers.remove(&id) else { return };
        if let Some(ids) = self.by_interest.get_mut(&watcher.interest) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_interest.remove(&watcher.interest);
            }
        }
    }

    /// Sends a change to all that it concerns. A watcher whose queue is full is let go: it comes back and replays.
    // flow: pod 4/16
    pub(super) fn send(&mut self, change: &Change, indexed: Option<usize>) {
        if self.watchers.is_empty() {
            return;
        }
        let mut concerned = HashSet::new();
        for interest in interests(change, indexed) {
            concerned.extend(self.by_interest.get(&interest).into_iter().flatten().copied());
        }
        let mut slow = Vec::new();
        for id in concerned {
            let Some(watcher) = self.watchers.get(&id) else { continue };
            let Some(event) = change.event(&watcher.selection) else { continue };
            if watcher.events.try_send(event).is_err() {
                slow.push(id);
            }
        }
        for id in slow {
            self.remove(id);
        }
    }
}

/// Under which interests a change is found.
fn interests(change: &Change, indexed: Option<usize>) -> Vec<Interest> {
    let field = |entry: &Arc<Entry>| entry.fields.selected.get(indexed?).map(Box::from);
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
