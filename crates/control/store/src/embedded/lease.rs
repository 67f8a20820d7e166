//! When leases end. Deadlines live in memory: after a restart every lease has its full time again.

use crate::LeaseId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The deadlines of all leases.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    leases: Mutex<HashMap<LeaseId, (Duration, Instant)>>,
    changed: Notify,
}

impl Deadlines {
    pub(super) fn start(&self, lease: LeaseId, ttl_seconds: u64) {
        let ttl = Duration::from_secs(ttl_seconds.clamp(1, u64::from(u32::MAX)));
        self.leases.lock().insert(lease, (ttl, Instant::now() + ttl));
        self.changed.notify_one();
    }

    /// Whether the lease was there to be renewed.
    pub(super) fn renew(&self, lease: LeaseId) -> bool {
        match self.leases.lock().get_mut(&lease) {
            Some((ttl, deadline)) => {
                *deadline = Instant::now() + *ttl;
                true
            }
            None => false,
        }
    }

    pub(super) fn forget(&self, lease: LeaseId) {
        self.leases.lock().remove(&lease);
    }

    /// Gives a lease whose end could not be written another moment.
    pub(super) fn retry(&self, lease: LeaseId) {
        if let Some((_, deadline)) = self.leases.lock().get_mut(&lease) {
            *deadline = Instant::now() + Duration::from_secs(1);
        }
    }

    /// Waits until a lease has ended. It stays among the others until it is forgotten.
    pub(super) async fn ended(&self) -> LeaseId {
        loop {
            let next = self.leases.lock().iter().map(|(id, (_, at))| (*at, *id)).min();
            match next {
                Some((at, lease)) if at <= Instant::now() => return lease,
                Some((at, _)) => {
                    // A renewed lease only wakes this early; a new one may end before the others.
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }
}
