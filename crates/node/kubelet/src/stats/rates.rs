//! Turns counters of processor time into rates, from one question to the next: nothing is measured between them.

use std::collections::HashMap;

/// Two questions closer than this share a rate: a shorter span says little.
const SHORTEST_NANOS: i64 = 1_000_000_000;
/// A sample older than this says nothing of now.
const LONGEST_NANOS: i64 = 300_000_000_000;

struct Sample {
    at: i64,
    used: u64,
    rate: Option<u64>,
}

/// The last sample of each thing that is measured.
#[derive(Default)]
pub struct Rates(HashMap<String, Sample>);

impl Rates {
    /// Billionths of a core in use, from the core-nanoseconds `used` until `at` (nanoseconds since the epoch). Nothing
    /// the first time.
    pub fn rate(&mut self, key: &str, at: i64, used: u64) -> Option<u64> {
        let rate = match self.0.get(key) {
            Some(last) if used >= last.used && at - last.at < SHORTEST_NANOS => return last.rate,
            Some(last) if used >= last.used && at - last.at <= LONGEST_NANOS => {
                let cores = u128::from(used - last.used) * 1_000_000_000 / (at - last.at).unsigned_abs() as u128;
                u64::try_from(cores).ok()
            }
            _ => None,
        };
        self.0.insert(key.to_owned(), Sample { at, used, rate });
        rate
    }

    /// Forgets what was not measured for long.
    pub fn forget_before(&mut self, now: i64) {
        self.0.retain(|_, sample| now - sample.at <= LONGEST_NANOS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn rates_are_of_the_span_between_two_questions() {
        let mut rates = Rates::default();
        let mut check = |at: i64, used: u64, expected| assert_eq!(rates.rate("a", at, used), expected, "at {at}");
        check(0, 0, None);
        check(10 * SECOND, 5_000_000_000, Some(500_000_000));
        check(10 * SECOND + 5, 5_000_000_100, Some(500_000_000));
        check(12 * SECOND, 9_000_000_000, Some(2_000_000_000));
        check(13 * SECOND, 1, None);
        check(1000 * SECOND, 2, None);
    }
}
