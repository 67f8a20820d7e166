//! Watch streams. A watcher is a place in the history, not a queue: it costs nothing while it waits, and a slow one
//! reads from the file what memory no longer has, until that is compacted away.

use super::disk::Archive;
use super::writer::Published;
use crate::{KeyRange, Revision, StoreError, WatchBatch, WatchStream};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// Revisions, or changes of them, read in one step.
const STEP: usize = 256;

/// Where a watcher is.
pub(super) struct Follower {
    pub published: Arc<Published>,
    pub archive: Option<Archive>,
    pub progress: watch::Receiver<Revision>,
    pub range: KeyRange,
    /// The next revision to look at.
    pub next: Revision,
    pub ready: VecDeque<WatchBatch>,
}

impl Follower {
    pub(super) fn stream(self) -> WatchStream {
        Box::pin(futures::stream::try_unfold(self, |mut follower| async move {
            let batch = follower.next_batch().await?;
            Ok(Some((batch, follower)))
        }))
    }

    async fn next_batch(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let newest = self.published.state.load().revision;
            if self.next > newest {
                let next = self.next;
                self.progress.wait_for(|revision| *revision >= next).await.map_err(|_| StoreError::Closed)?;
                continue;
            }
            let batches = self.read(newest).await?;
            self.take(&batches, newest);
        }
    }

    /// Some of the changes from `next` on; empty when there are none up to `newest`.
    async fn read(&self, newest: Revision) -> Result<Vec<Arc<WatchBatch>>, StoreError> {
        self.check_kept()?;
        if let Some(batches) = self.published.history.read().since(self.next, STEP) {
            return Ok(batches);
        }
        let Some(archive) = self.archive.clone() else { return Err(self.compacted()) };
        let from = self.next;
        let read = tokio::task::spawn_blocking(move || archive.changes(from, newest, STEP)).await;
        let batches = read.map_err(|e| StoreError::Unavailable(e.to_string()))??;
        // A compaction meanwhile may have taken some of what was read for.
        self.check_kept()?;
        Ok(batches.into_iter().map(Arc::new).collect())
    }

    fn check_kept(&self) -> Result<(), StoreError> {
        if self.next < self.published.state.load().compacted { Err(self.compacted()) } else { Ok(()) }
    }

    fn compacted(&self) -> StoreError {
        StoreError::Compacted { asked: self.next, oldest: self.published.state.load().compacted }
    }

    /// Keeps what is watched of some batches, and says how far nothing is outstanding when the last was of no interest.
    fn take(&mut self, batches: &[Arc<WatchBatch>], newest: Revision) {
        let seen = batches.last().map_or(newest, |batch| batch.revision);
        for batch in batches {
            let events = batch.events.iter().filter(|event| self.range.contains(event.key()));
            let events: Vec<_> = events.cloned().collect();
            if !events.is_empty() {
                self.ready.push_back(WatchBatch { revision: batch.revision, events });
            }
        }
        if self.ready.back().is_none_or(|last| last.revision != seen) {
            self.ready.push_back(WatchBatch { revision: seen, events: Vec::new() });
        }
        self.next = seen + 1;
    }
}
