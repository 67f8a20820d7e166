//! How long the failed pod of a node stays before it is replaced, so that a kubelet that refuses each is not flooded.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(900);

/// Delays by set and node; they double with each failure and are forgotten after twice the longest.
#[derive(Debug, Default)]
pub struct Backoff(HashMap<String, (Duration, Instant)>);

impl Backoff {
    /// How much of the delay is left; nothing when the next pod may go.
    pub fn left(&self, key: &str, now: Instant) -> Option<Duration> {
        let (delay, since) = self.0.get(key)?;
        delay.checked_sub(now.duration_since(*since)).filter(|left| !left.is_zero())
    }

    /// A pod goes now: the next one waits longer.
    pub fn failed(&mut self, key: &str, now: Instant) {
        self.0.retain(|_, (_, since)| now.duration_since(*since) <= LONGEST * 2);
        let delay = self.0.get(key).map_or(FIRST, |(delay, _)| (*delay * 2).min(LONGEST));
        self.0.insert(key.to_owned(), (delay, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_failure_doubles_the_delay_until_it_is_forgotten() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        assert_eq!(backoff.left("n", start), None);
        for seconds in [1, 2, 4] {
            backoff.failed("n", start);
            assert_eq!(backoff.left("n", start), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(backoff.left("n", start + Duration::from_secs(3)), Some(Duration::from_secs(1)));
        assert_eq!(backoff.left("n", start + Duration::from_secs(4)), None);
        let later = start + LONGEST * 3;
        backoff.failed("n", later);
        assert_eq!(backoff.left("n", later), Some(FIRST));
    }
}
