//! Where all choices come from: generators that are derived from the seed, one for each who chooses, so that a new
//! chooser changes nobody else's choices.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::ops::Range;
use std::time::Duration;

/// A source of choices.
#[derive(Debug)]
pub(crate) struct Chance(Mutex<StdRng>);

impl Chance {
    /// The choices of `who` under a seed.
    pub(crate) fn of(seed: u64, who: &str) -> Self {
        // FNV-1a: the same in every build.
        let hash =
            who.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Self(Mutex::new(StdRng::seed_from_u64(seed ^ hash)))
    }

    /// Whether something of that probability happens.
    pub(crate) fn happens(&self, probability: f64) -> bool {
        probability > 0.0 && self.0.lock().random_bool(probability.min(1.0))
    }

    pub(crate) fn number(&self, range: Range<u64>) -> u64 {
        self.0.lock().random_range(range)
    }

    pub(crate) fn pick<'a, T>(&self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.0.lock().random_range(0..list.len())) }
    }

    pub(crate) fn time(&self, range: Range<Duration>) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.number(nanos(range.start)..nanos(range.end).max(nanos(range.start) + 1)))
    }
}
