//! Answers of webhooks and expensive checks, kept for a while under the hash of the question.

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Never more than this many answers are kept.
const MAX_ENTRIES: usize = 4096;

/// Values with the times when they run out. Keys are hashed, so that no token stays in memory.
pub(crate) struct Expiring<V> {
    entries: Mutex<HashMap<[u8; 32], (Instant, V)>>,
}

impl<V> Default for Expiring<V> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<V> std::fmt::Debug for Expiring<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expiring({})", self.entries.lock().len())
    }
}

impl<V: Clone> Expiring<V> {
    pub fn get(&self, key: &[u8]) -> Option<V> {
        let entries = self.entries.lock();
        let (until, value) = entries.get::<[u8; 32]>(&Sha256::digest(key).into())?;
        (*until > Instant::now()).then(|| value.clone())
    }

    /// Keeps a value; for no time at all, nothing is kept.
    pub fn put(&self, key: &[u8], value: V, keep: Duration) {
        if keep.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut entries = self.entries.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(Sha256::digest(key).into(), (now + keep, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn values_run_out_and_never_grow_beyond_the_bound() {
        let cache = Expiring::default();
        cache.put(b"a", 1, Duration::from_secs(5));
        cache.put(b"b", 2, Duration::ZERO);
        assert_eq!((cache.get(b"a"), cache.get(b"b")), (Some(1), None));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(cache.get(b"a"), None);
        for n in 0..2 * MAX_ENTRIES {
            cache.put(&n.to_le_bytes(), 0, Duration::from_secs(5));
        }
        assert!(cache.entries.lock().len() <= MAX_ENTRIES);
    }
}
