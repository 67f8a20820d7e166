//! What a controller waits to see: creations and deletions that it asked for and that its informer has yet to show.
//!
//! Acting on a cache that lags behind one's own writes would create or delete twice. After five minutes an
//! expectation is given up, so that a lost event can't stop a controller for good.

use parking_lot::Mutex;
use pintle_types::ObjectKey;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

const GIVE_UP: Duration = Duration::from_secs(300);

struct Expected {
    creations: usize,
    /// The uids of what is being deleted.
    deletions: HashSet<String>,
    /// A creation got no answer: nobody knows whether there is one more.
    doubtful: bool,
    since: Instant,
}

/// The expectations of one controller, by the owner's key.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<ObjectKey, Expected>>);

impl Expectations {
    /// Until what was expected of an owner and was not seen is given up, when the owner has to be looked at again, for
    /// nothing else might wake it. None when everything was seen, or is given up.
    pub fn left(&self, key: &ObjectKey) -> Option<Duration> {
        let all = self.0.lock();
        let expected = all.get(key).filter(|expected| expected.creations > 0 || !expected.deletions.is_empty())?;
        GIVE_UP.checked_sub(expected.since.elapsed()).filter(|left| !left.is_zero())
    }

    /// Waits for new creations in place of what was expected before.
    pub fn expect_creations(&self, key: &ObjectKey, count: usize) {
        self.set(key, count, HashSet::new());
    }

    /// Waits for deletions in place of what was expected before.
    pub fn expect_deletions(&self, key: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        self.set(key, 0, uids.into_iter().collect());
    }

    /// Waits for both in place of what was expected before.
    pub fn expect(&self, key: &ObjectKey, creations: usize, uids: impl IntoIterator<Item = String>) {
        self.set(key, creations, uids.into_iter().collect());
    }

    /// A creation was seen, or failed.
    pub fn created(&self, key: &ObjectKey) {
        self.created_many(key, 1);
    }

    /// Several creations were seen, failed or were not tried.
    pub fn created_many(&self, key: &ObjectKey, count: usize) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// A creation got no answer. Until [`Self::certain`], what is there has to be asked of the server.
    pub fn doubt(&self, key: &ObjectKey) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.doubtful = true;
        }
    }

    /// Whether a creation got no answer, and what came of it is not known yet.
    pub fn is_doubtful(&self, key: &ObjectKey) -> bool {
        self.0.lock().get(key).is_some_and(|expected| expected.doubtful)
    }

    /// Everything that was created has been seen, whatever was answered.
    pub fn certain(&self, key: &ObjectKey) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            (expected.creations, expected.doubtful) = (0, false);
        }
    }

    /// A deletion was seen, or failed.
    pub fn deleted(&self, key: &ObjectKey, uid: &str) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    fn set(&self, key: &ObjectKey, creations: usize, deletions: HashSet<String>) {
        self.0.lock().insert(key.clone(), Expected { creations, deletions, doubtful: false, since: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn expectations_are_met_one_by_one_or_given_up() {
        let expectations = Expectations::default();
        let key = ObjectKey::new("default", "web");
        assert_eq!(expectations.left(&key), None);
        expectations.expect(&key, 2, ["a".to_owned()]);
        expectations.created(&key);
        expectations.deleted(&key, "b");
        assert_eq!(expectations.left(&key), Some(GIVE_UP));
        expectations.created(&key);
        expectations.deleted(&key, "a");
        assert_eq!(expectations.left(&key), None);
        expectations.expect_creations(&key, 1);
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(expectations.left(&key), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(expectations.left(&key), None);
    }

    #[test]
    fn a_doubt_ends_with_certainty() {
        let expectations = Expectations::default();
        let key = ObjectKey::new("default", "web");
        expectations.expect(&key, 2, ["a".to_owned()]);
        assert!(!expectations.is_doubtful(&key));
        expectations.doubt(&key);
        expectations.created_many(&key, 2);
        assert!(expectations.is_doubtful(&key));
        expectations.certain(&key);
        assert!(!expectations.is_doubtful(&key) && expectations.left(&key).is_some(), "the deletion is still expected");
    }
}
