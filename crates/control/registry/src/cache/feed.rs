//! Follows the store: one watch for everything, routed to the resources.

use super::{OpenCacheError, PATIENCE, ROOT, Shared};
use futures::StreamExt;
use pintle_store::{Event, KeyRange, Revision, StoreError, WatchBatch, WatchStream};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The time between attempts to watch a store that keeps breaking watches.
const PAUSE: Duration = Duration::from_millis(100);

/// The task that feeds the cache; it ends with this handle.
pub(super) struct Feed(JoinHandle<()>);

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Feed {
    pub(super) async fn start(shared: &Arc<Shared>, from: Revision) -> Result<Self, StoreError> {
        let watch = shared.store.watch(KeyRange::prefix(ROOT), from).await?;
        Ok(Self(tokio::spawn(run(Arc::downgrade(shared), watch))))
    }
}

async fn run(shared: Weak<Shared>, mut watch: WatchStream) {
    let mut resumed: Option<Instant> = None;
    loop {
        let batch = watch.next().await;
        let Some(shared) = shared.upgrade() else { return };
        match batch {
            Some(Ok(batch)) => {
                shared.take(batch);
                continue;
            }
            Some(Err(StoreError::Closed)) => return,
            Some(Err(error)) => tracing::warn!(%error, "the cache lost its watch; it reads everything again"),
            None => tracing::warn!("the store ended the cache's watch; it reads everything again"),
        }
        // A store whose watches break at once must not keep the processor busy.
        if resumed.is_some_and(|at| at.elapsed() < PATIENCE) {
            tokio::time::sleep(PAUSE).await;
        }
        resumed = Some(Instant::now());
        watch = resume(&shared).await;
    }
}

/// Reads everything and watches from there, again and again until it succeeds.
async fn resume(shared: &Shared) -> WatchStream {
    loop {
        match try_resume(shared).await {
            Ok(watch) => return watch,
            Err(error) => tracing::error!(%error, "the cache cannot be read again; trying on"),
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

async fn try_resume(shared: &Shared) -> Result<WatchStream, OpenCacheError> {
    let revision = shared.store.revision().await?;
    // What was on its way may never come by; parsing it again is the price.
    shared.parsed.lock().clear();
    shared.load(revision).await?;
    shared.reached.send_replace(revision);
    Ok(shared.store.watch(KeyRange::prefix(ROOT), revision + 1).await?)
}

impl Shared {
    /// Applies one batch to the resources that it is about.
    fn take(&self, batch: WatchBatch) {
        let mut groups: Vec<(Arc<super::Resource>, Vec<Event>)> = Vec::new();
        for event in batch.events {
            let (Event::Put { kv, .. } | Event::Delete { kv, .. }) = &event;
            let Some(resource) = self.route(&kv.key) else {
                self.take_parsed(&kv.value);
                continue;
            };
            match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &resource)) {
                Some((_, events)) => events.push(event),
                None => groups.push((resource, vec![event])),
            }
        }
        for (resource, events) in groups {
            resource.apply(batch.revision, events, |kv| self.take_parsed(&kv.value));
        }
        self.reached.send_replace(batch.revision);
    }
}
