//! Exponential delays before something that failed is tried again: 10 s, doubled up to 300 s or what is set, forgotten
//! after 10 min.
//!
//! Source: client-go's `flowcontrol.Backoff` as the kubelet uses it for containers and for image pulls; KEP-4603.

use crate::duration::go;
use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

const BASE: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// Something that has not failed for so long fails as if for the first time, however long its delays may get.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The most that the delay before a container's restart grows to: `crashLoopBackOff.maxContainerRestartPeriod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxRestartPeriod(Duration);

/// A period that is too short or too long, as Go prints it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration: crashLoopBackOff.maxContainerRestartPeriod (got: {0}) must be set between 1s and 300s")]
pub struct RestartPeriodError(String);

impl MaxRestartPeriod {
    /// # Errors
    /// It is less than a second or more than five minutes.
    pub fn new(period: Duration) -> Result<Self, RestartPeriodError> {
        let fits = (Duration::from_secs(1)..=MAX).contains(&period);
        fits.then_some(Self(period)).ok_or_else(|| RestartPeriodError(go(period)))
    }

    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for MaxRestartPeriod {
    fn default() -> Self {
        Self(MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

/// The delays of a pod's containers or images, by name.
#[derive(Debug)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(MaxRestartPeriod::default())
    }
}

impl Backoff {
    /// Whose delays, the first one, too, are no longer than that.
    pub fn up_to(period: MaxRestartPeriod) -> Self {
        Self { entries: HashMap::new(), longest: period.get() }
    }

    /// What is left of the delay, counted from `since` (when the thing failed); nothing when it may be tried now.
    /// With it comes the whole delay, for messages.
    pub fn remaining(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(key)?;
        if elapsed(entry.updated, since) > FORGOTTEN {
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
            Some(entry) if elapsed(entry.updated, event) <= FORGOTTEN => entry.delay * 2,
            _ => BASE,
        };
        let delay = delay.min(self.longest);
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

    fn period(seconds: u64) -> MaxRestartPeriod {
        MaxRestartPeriod::new(Duration::from_secs(seconds)).unwrap()
    }

    /// The delays of one failure after the other, in seconds.
    fn delays(mut backoff: Backoff) -> [u64; 7] {
        assert_eq!(backoff.remaining("c", at(0), at(0)), None, "the first restart is at once");
        std::array::from_fn(|_| {
            backoff.next("c", at(0), at(0));
            backoff.remaining("c", at(0), at(0)).unwrap().1.as_secs()
        })
    }

    #[test]
    fn delays_double_up_to_five_minutes_or_what_is_set() {
        assert_eq!(delays(Backoff::default()), [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(delays(Backoff::up_to(period(300))), [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(delays(Backoff::up_to(period(30))), [10, 20, 30, 30, 30, 30, 30]);
        assert_eq!(delays(Backoff::up_to(period(2))), [2; 7], "the first one is no longer, either");
    }

    #[test]
    fn a_period_is_between_a_second_and_five_minutes() {
        for (millis, told) in [(0, "0s"), (999, "999ms"), (300_001, "5m0.001s")] {
            let refused = MaxRestartPeriod::new(Duration::from_millis(millis)).unwrap_err().to_string();
            assert!(refused.contains(&format!("(got: {told}) must be set between 1s and 300s")), "{refused}");
        }
        assert_eq!(period(1).get(), Duration::from_secs(1));
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
        for mut backoff in [Backoff::default(), Backoff::up_to(period(15))] {
            backoff.next("c", at(0), at(0));
            backoff.next("c", at(0), at(0));
            assert_eq!(backoff.remaining("c", at(601), at(601)), None);
            backoff.next("c", at(600), at(600));
            assert!(backoff.remaining("c", at(600), at(600)).unwrap().1 > BASE);
            backoff.next("c", at(1201), at(1201));
            assert_eq!(backoff.remaining("c", at(1201), at(1201)).unwrap().1, BASE);
        }
    }
}
