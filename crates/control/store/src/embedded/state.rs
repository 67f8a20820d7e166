//! The state of the store at one revision, and how a transaction changes it. Pure: no disk, no time.
//!
//! A state is a persistent map: cloning one is a few reference counts, and a clone stays as it was while the original
//! is changed. The writer works on a clone and throws it away when the disk refuses.

use crate::{Compare, Event, KeyRange, KeyValue, LeaseId, Op, Revision, StoreError, Txn, TxnResult};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

/// How many bits of a row number count the changes within one revision.
pub(super) const ROW_BITS: u32 = 20;
/// Changes that one transaction may make.
const MAX_CHANGES: usize = (1 << ROW_BITS) - 1;

/// The number of a change on disk: its revision, and its place within it.
pub(super) type Row = i64;

pub(super) fn first_row(revision: Revision) -> Row {
    (revision << ROW_BITS) as Row
}

pub(super) fn row_revision(row: Row) -> Revision {
    row as u64 >> ROW_BITS
}

/// A live key and where its last change is on disk.
#[derive(Debug)]
pub(super) struct Live {
    pub kv: KeyValue,
    pub row: Row,
}

/// A live key in the order of keys. One pointer wide, so that copying a node of the tree is cheap.
#[derive(Clone, Debug)]
pub(super) struct Slot(pub Arc<Live>);

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.0.kv.key == other.0.kv.key
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.kv.key.cmp(&other.0.kv.key)
    }
}

impl Borrow<[u8]> for Slot {
    fn borrow(&self) -> &[u8] {
        &self.0.kv.key
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct LeaseState {
    pub ttl_seconds: u64,
    pub keys: OrdSet<Bytes>,
}

/// One change of a revision, as the disk and the watchers get it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub row: Row,
    /// The row that this one replaces; 0 is none.
    pub previous_row: Row,
    pub event: Event,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub revision: Revision,
    /// The oldest revision that can be read.
    pub compacted: Revision,
    pub live: OrdSet<Slot>,
    pub leases: OrdMap<LeaseId, LeaseState>,
    /// The newest lease's number: none is given twice.
    pub last_lease: LeaseId,
}

impl Default for State {
    fn default() -> Self {
        Self { revision: 1, compacted: 1, live: OrdSet::new(), leases: OrdMap::new(), last_lease: 0 }
    }
}

impl State {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<Live>> {
        self.live.get(key).map(|slot| &slot.0)
    }

    /// The live keys of a range, in order.
    pub(super) fn range<'a>(&'a self, range: &'a KeyRange) -> Box<dyn Iterator<Item = &'a Arc<Live>> + 'a> {
        let start = Bound::Included(&range.start[..]);
        let end = match &range.end {
            None => return Box::new(self.get(&range.start).into_iter()),
            Some(end) if end.is_empty() => Bound::Unbounded,
            Some(end) if end <= &range.start => return Box::new(std::iter::empty()),
            Some(end) => Bound::Excluded(&end[..]),
        };
        Box::new(self.live.range::<_, [u8]>((start, end)).map(|slot| &slot.0))
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision(key, revision) => self.get(key).map_or(0, |l| l.kv.mod_revision) == *revision,
            Compare::CreateRevision(key, revision) => self.get(key).map_or(0, |l| l.kv.create_revision) == *revision,
        }
    }

    /// Does a transaction. On an error nothing was changed.
    pub(super) fn apply(&mut self, txn: &Txn) -> Result<(TxnResult, Vec<Change>), StoreError> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        self.check(ops)?;
        let mut step = Step { revision: self.revision + 1, changes: Vec::new() };
        let mut results = Vec::with_capacity(ops.len());
        for op in ops {
            results.push(match op {
                Op::Get(range) => self.range(range).map(|live| live.kv.clone()).collect(),
                Op::Put { key, value, lease } => {
                    self.put(key, value, *lease, &mut step);
                    Vec::new()
                }
                Op::Delete(range) => self.delete(range, &mut step),
            });
        }
        if !step.changes.is_empty() {
            self.revision = step.revision;
        }
        Ok((TxnResult { succeeded, revision: self.revision, results }, step.changes))
    }

    fn check(&self, ops: &[Op]) -> Result<(), StoreError> {
        let mut keys = HashSet::new();
        let (mut changes, mut deleted) = (0, Vec::new());
        for op in ops {
            match op {
                Op::Put { key, lease, .. } => {
                    if *lease != 0 && !self.leases.contains_key(lease) {
                        return Err(StoreError::NoSuchLease(*lease));
                    }
                    if !keys.insert(key) {
                        return Err(twice(key));
                    }
                    changes += 1;
                }
                Op::Delete(range) => {
                    changes += self.range(range).count();
                    deleted.push(range);
                }
                Op::Get(_) => {}
            }
        }
        if let Some(key) = keys.into_iter().find(|key| deleted.iter().any(|range| range.contains(key))) {
            return Err(twice(key));
        }
        if changes > MAX_CHANGES {
            return Err(StoreError::Invalid(format!("{changes} changes; at most {MAX_CHANGES} go into one revision")));
        }
        Ok(())
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, lease: LeaseId, step: &mut Step) {
        let previous = self.get(key).cloned();
        let revision = step.revision;
        let kv = KeyValue {
            key: previous.as_ref().map_or_else(|| key.clone(), |p| p.kv.key.clone()),
            value: value.clone(),
            create_revision: previous.as_ref().map_or(revision, |p| p.kv.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(0, |p| p.kv.version) + 1,
            lease,
        };
        self.move_lease(&kv.key, previous.as_ref().map_or(0, |p| p.kv.lease), lease);
        let (row, previous_row) = (step.next_row(), previous.as_ref().map_or(0, |p| p.row));
        self.live.insert(Slot(Arc::new(Live { kv: kv.clone(), row })));
        let event = Event::Put { kv, prev: previous.map(|p| p.kv.clone()) };
        step.changes.push(Change { row, previous_row, event });
    }

    fn delete(&mut self, range: &KeyRange, step: &mut Step) -> Vec<KeyValue> {
        let doomed: Vec<Arc<Live>> = self.range(range).cloned().collect();
        for live in &doomed {
            self.live.remove(&live.kv.key[..]);
            self.move_lease(&live.kv.key, live.kv.lease, 0);
            let row = step.next_row();
            let event = Event::Delete { kv: tombstone(&live.kv.key, step.revision), prev: Some(live.kv.clone()) };
            step.changes.push(Change { row, previous_row: live.row, event });
        }
        doomed.iter().map(|live| live.kv.clone()).collect()
    }

    fn move_lease(&mut self, key: &Bytes, from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&to) {
            lease.keys.insert(key.clone());
        }
    }

    /// Ends a lease: its keys are deleted, under one revision unless they are too many for one.
    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<Vec<Change>, StoreError> {
        let ended = self.leases.remove(&lease).ok_or(StoreError::NoSuchLease(lease))?;
        let keys: Vec<Bytes> = ended.keys.into_iter().collect();
        let mut changes = Vec::with_capacity(keys.len());
        for group in keys.chunks(MAX_CHANGES) {
            let mut step = Step { revision: self.revision + 1, changes: Vec::new() };
            for key in group {
                self.delete(&KeyRange::key(key.clone()), &mut step);
            }
            self.revision = step.revision;
            changes.append(&mut step.changes);
        }
        Ok(changes)
    }
}

/// The changes that are made under one revision.
struct Step {
    revision: Revision,
    changes: Vec<Change>,
}

impl Step {
    fn next_row(&self) -> Row {
        first_row(self.revision) + self.changes.len() as Row
    }
}

fn twice(key: &[u8]) -> StoreError {
    StoreError::Invalid(format!("it changes {} twice", String::from_utf8_lossy(key)))
}

/// What a deletion leaves of a key.
pub(super) fn tombstone(key: &Bytes, revision: Revision) -> KeyValue {
    KeyValue { key: key.clone(), value: Bytes::new(), create_revision: 0, mod_revision: revision, version: 0, lease: 0 }
}

impl Event {
    pub(super) fn key(&self) -> &Bytes {
        let (Event::Put { kv, .. } | Event::Delete { kv, .. }) = self;
        &kv.key
    }

    pub(super) fn previous(&self) -> Option<&KeyValue> {
        let (Event::Put { prev, .. } | Event::Delete { prev, .. }) = self;
        prev.as_ref()
    }

    /// What keeping the event costs: the bytes that only it may hold.
    pub(super) fn weight(&self) -> usize {
        let (Event::Put { kv, prev } | Event::Delete { kv, prev }) = self;
        kv.value.len() + kv.key.len() + prev.as_ref().map_or(0, |p| p.value.len()) + 256
    }
}
