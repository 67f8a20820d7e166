//! Leases of objects that do not live for ever. Many objects share one, so that leases stay few.

use pintle_store::{LeaseId, Store, StoreError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a lease takes new objects; it lives that much longer than they must.
const REUSE: Duration = Duration::from_secs(60);
/// Objects on one lease.
const MAX_OBJECTS: usize = 1000;

#[derive(Debug)]
struct Open {
    lease: LeaseId,
    since: Instant,
    objects: usize,
}

#[derive(Debug)]
pub(crate) struct SharedLeases {
    ttl_seconds: u64,
    open: Mutex<Option<Open>>,
}

impl SharedLeases {
    pub(crate) fn new(ttl_seconds: u64) -> Self {
        Self { ttl_seconds, open: Mutex::default() }
    }

    /// The lease for one more object.
    pub(crate) async fn current(&self, store: &dyn Store) -> Result<LeaseId, StoreError> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_mut().filter(|open| open.since.elapsed() < REUSE && open.objects < MAX_OBJECTS) {
            open.objects += 1;
            return Ok(open.lease);
        }
        let lease = store.grant_lease(self.ttl_seconds + REUSE.as_secs()).await?;
        *open = Some(Open { lease, since: Instant::now(), objects: 1 });
        Ok(lease)
    }
}
