//! Remembers which thresholds are crossed, since when, and which are still being won back. Pure but for what it keeps.

use super::thresholds::{Crossed, Observation, Threshold};
use std::time::Duration;
use tokio::time::Instant;

/// What is known of one threshold.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// When it was first seen crossed, of this time.
    since: Option<Instant>,
    /// It was acted upon: it counts as crossed until more than the threshold is there again.
    due: bool,
}

/// The thresholds of a node, and how they stand.
pub struct Met {
    thresholds: Vec<Threshold>,
    known: Vec<Known>,
}

/// What one look found.
pub struct Found {
    /// Conditions of the node; they are told before a soft threshold is acted upon.
    pub conditions: Vec<&'static str>,
    /// What is to be acted upon, the first first.
    pub due: Vec<Crossed>,
}

impl Met {
    pub fn new(thresholds: Vec<Threshold>) -> Self {
        let known = vec![Known::default(); thresholds.len()];
        Self { thresholds, known }
    }

    /// Takes what there is now.
    pub fn look(&mut self, observation: &Observation, now: Instant) -> Found {
        let mut found = Found { conditions: Vec::new(), due: Vec::new() };
        for (threshold, known) in self.thresholds.iter().zip(&mut self.known) {
            let Some(crossed) = threshold.crossed(observation, known.due) else {
                *known = Known::default();
                continue;
            };
            found.conditions.push(threshold.signal.condition());
            let since = *known.since.get_or_insert(now);
            known.due = now.duration_since(since) >= threshold.grace;
            found.due.extend(known.due.then_some(crossed));
        }
        found.due.sort_by_key(|crossed| crossed.signal);
        found
    }

    /// Whether a threshold is crossed, whatever it was before and however long.
    pub fn is_any_crossed(&self, observation: &Observation) -> bool {
        self.thresholds.iter().any(|threshold| threshold.crossed(observation, false).is_some())
    }
}

/// Seconds that a pod which goes because of a threshold gets to end: a soft one leaves it its own, up to `most`.
pub fn grace(crossed: &Crossed, own: Option<i64>, most: Duration) -> i64 {
    if crossed.is_hard {
        return super::GRACE_SECONDS;
    }
    let most = i64::try_from(most.as_secs()).unwrap_or(i64::MAX);
    own.map_or(most, |own| own.min(most)).max(super::GRACE_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::thresholds::{Amount, Signal};
    use crate::stats::machine_use::MachineUse;

    fn available(mebibytes: u64) -> Observation {
        let memory_working_set = (1 << 30) - (mebibytes << 20);
        let machine = MachineUse { memory_total: 1 << 30, memory_working_set, ..Default::default() };
        Observation { machine, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_soft_threshold_is_acted_upon_after_its_time_until_enough_is_won_back() {
        let soft = Threshold {
            grace: Duration::from_secs(60),
            reclaim: Some(Amount::Units(50 << 20)),
            ..Threshold::hard(Signal::Memory, Amount::Units(200 << 20))
        };
        let mut met = Met::new(vec![Threshold::hard(Signal::Memory, Amount::Units(100 << 20)), soft]);
        // Seconds, what is available then, whether there is pressure, and the thresholds that are due in MiB.
        let steps: [(u64, u64, bool, &[u64]); 9] = [
            (0, 300, false, &[]),
            (1, 150, true, &[]),
            (59, 150, true, &[]),
            (1, 150, true, &[200]),
            (1, 90, true, &[100, 200]),
            (1, 150, true, &[200]),
            (1, 249, true, &[200]),
            (1, 250, false, &[]),
            (100, 199, true, &[]),
        ];
        for (number, (seconds, mebibytes, pressure, due)) in steps.into_iter().enumerate() {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            let found = met.look(&available(mebibytes), Instant::now());
            assert_eq!(!found.conditions.is_empty(), pressure, "step {number}");
            let got: Vec<u64> = found.due.iter().map(|crossed| crossed.least >> 20).collect();
            assert_eq!(got, due, "step {number}");
        }
    }

    #[test]
    fn pods_get_their_own_time_only_where_there_is_time() {
        let crossed = |is_hard| Crossed { signal: Signal::Memory, least: 1, available: 0, is_hard };
        for (is_hard, own, most, seconds) in [
            (true, Some(30), 60, 1),
            (false, Some(30), 60, 30),
            (false, Some(90), 60, 60),
            (false, None, 60, 60),
            (false, Some(30), 0, 1),
        ] {
            assert_eq!(grace(&crossed(is_hard), own, Duration::from_secs(most)), seconds);
        }
    }
}
