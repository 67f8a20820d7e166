//! Exponential delays before something that failed is tried again: 10 s, doubled up to 300 s, forgotten after 10 min.
//!
//! Source: client-go's `flowcontrol.Backoff` as the kubelet uses it for containers and for image pulls.

use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

pub const BASE: Duration = Duration::from_secs(10);
pub const MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

/// The delays of a pod's containers or images, by name.
#[derive(Debug, Default)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
}

impl Backoff {
    /// What is left of the delay, counted from `since` (when the thing failed); nothing when it may be tried now.
    /// With it comes the whole delay, for messages.
    pub fn remaining(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(key)?;
        if elapsed(entry.updated, since) > 2 * MAX {
            return None;
        }
        let left = entry.delay.checked_sub(elapsed(since, now))?;
        (!left.is_zero()).then_some((left, entry.delay))
    }

    /// As [`Self::remaining`], counted from when the delay was last set.
    pub fn remaining_since_update(&self, key: &str, now: Timestamp) -> Option<(Duration, Duration)> {
        self.remaining(key, self.entries.get(key)?.updated, now)
    }

    /// Sets the delay that the next failure meets: the first, or twice the last one.
    pub fn next(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if elapsed(entry.updated, event) <= 2 * MAX => (entry.delay * 2).min(MAX),
            _ => BASE,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// How long after `from` is `to`; zero when it is before.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn delays_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.remaining("c", at(0), at(0)), None, "the first restart is at once");
        let mut seen = Vec::new();
        for _ in 0..7 {
            backoff.next("c", at(0), at(0));
            seen.push(backoff.remaining("c", at(0), at(0)).unwrap().1.as_secs());
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_delay_counts_from_the_failure() {
        let mut backoff = Backoff::default();
        backoff.next("c", at(0), at(0));
        assert_eq!(backoff.remaining("c", at(1), at(4)), Some((Duration::from_secs(7), BASE)));
        assert_eq!(backoff.remaining("c", at(1), at(11)), None);
    }

    #[test]
    fn ten_quiet_minutes_forget_the_delay() {
        let mut backoff = Backoff::default();
        backoff.next("c", at(0), at(0));
        backoff.next("c", at(0), at(0));
        assert_eq!(backoff.remaining("c", at(601), at(601)), None);
        backoff.next("c", at(601), at(601));
        assert_eq!(backoff.remaining("c", at(601), at(601)).unwrap().1, BASE);
    }
}
