//! Lets one thing pass at a time, and the next after a pause.
//!
//! Source: a token bucket that holds one token, as upstream's limiters of evictions; `rate_limited_queue.go`.

use std::time::Duration;
use tokio::time::Instant;

/// A bucket of one token.
#[derive(Debug)]
pub struct Bucket {
    /// How long the token takes to come back; nothing when it never does.
    pause: Option<Duration>,
    /// When the token is there.
    full: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub fn new(per_second: f64, now: Instant) -> Self {
        let pause = pause(per_second);
        Self { pause, full: pause.map(|_| now) }
    }

    /// From when on something may pass; nothing for never.
    pub fn next(&self) -> Option<Instant> {
        self.full
    }

    /// Whether something may pass now; then the token is gone.
    pub fn take(&mut self, now: Instant) -> bool {
        let may = self.full.is_some_and(|full| full <= now);
        if may {
            self.full = self.pause.and_then(|pause| now.checked_add(pause));
        }
        may
    }

    /// Another rate. Whoever had to wait before waits for a whole pause of the new one.
    pub fn change(&mut self, per_second: f64, now: Instant) {
        let new = pause(per_second);
        if new != self.pause {
            let had = self.full.is_some_and(|full| full <= now);
            self.pause = new;
            self.full = new.and_then(|pause| if had { Some(now) } else { now.checked_add(pause) });
        }
    }
}

/// Nothing for rates of which nobody lives to see the second thing.
fn pause(per_second: f64) -> Option<Duration> {
    if per_second > 0.0 { Duration::try_from_secs_f64(1.0 / per_second).ok() } else { None }
}
