//! The recent changes, in memory: what watchers read, and what past states are worked back to with.

use super::state::State;
use crate::{KeyRange, KeyValue, RangeResult, Revision, WatchBatch};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The changes of the last revisions, without a gap up to the newest.
#[derive(Debug)]
pub(super) struct History {
    batches: VecDeque<Arc<WatchBatch>>,
    /// All changes from this revision on are here.
    first: Revision,
    weight: usize,
    max_weight: usize,
}

impl History {
    /// Nothing yet after `revision`. Grows up to `max_weight` bytes, roughly.
    pub(super) fn after(revision: Revision, max_weight: usize) -> Self {
        Self { batches: VecDeque::new(), first: revision + 1, weight: 0, max_weight }
    }

    pub(super) fn push(&mut self, batch: WatchBatch) {
        self.weight += weight(&batch);
        self.batches.push_back(Arc::new(batch));
        while self.weight > self.max_weight && self.batches.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.batches.pop_front() {
            self.weight -= weight(&oldest);
            self.first = oldest.revision + 1;
        }
    }

    /// Forgets the changes before a revision.
    pub(super) fn forget_before(&mut self, revision: Revision) {
        while self.batches.front().is_some_and(|batch| batch.revision < revision) {
            self.pop();
        }
    }

    /// At most `limit` batches from a revision on; nothing when some of them are no longer here.
    pub(super) fn since(&self, from: Revision, limit: usize) -> Option<Vec<Arc<WatchBatch>>> {
        if from < self.first {
            return None;
        }
        let start = self.batches.partition_point(|batch| batch.revision < from);
        Some(self.batches.range(start..).take(limit).cloned().collect())
    }

    /// A range as it was at revision `at`, worked back from a newer state; nothing when the changes in between are no
    /// longer here.
    pub(super) fn read_at(&self, state: &State, range: &KeyRange, at: Revision, limit: usize) -> Option<RangeResult> {
        if at + 1 < self.first {
            return None;
        }
        let mut before: BTreeMap<Bytes, Option<KeyValue>> = BTreeMap::new();
        let start = self.batches.partition_point(|batch| batch.revision <= at);
        for batch in self.batches.range(start..).take_while(|batch| batch.revision <= state.revision) {
            for event in batch.events.iter().filter(|event| range.contains(event.key())) {
                before.entry(event.key().clone()).or_insert_with(|| event.previous().cloned());
            }
        }
        let unchanged =
            state.range(range).filter(|live| !before.contains_key(&live.kv.key)).map(|live| live.kv.clone());
        let mut kvs: Vec<KeyValue> = unchanged.chain(before.values().flatten().cloned()).collect();
        kvs.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Some(limited(kvs, state.revision, limit))
    }
}

fn weight(batch: &WatchBatch) -> usize {
    64 + batch.events.iter().map(|event| event.weight()).sum::<usize>()
}

/// The answer to a read that found `kvs`.
pub(super) fn limited(mut kvs: Vec<KeyValue>, revision: Revision, limit: usize) -> RangeResult {
    let count = kvs.len();
    if limit > 0 {
        kvs.truncate(limit);
    }
    RangeResult { revision, kvs, count }
}
