//! Counts results in a row and says when they make a verdict.

use pintle_types::k8s::api::core::v1::Probe;

/// The run of equal results so far.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    failures_needed: u32,
    successes_needed: u32,
    last: Option<bool>,
    run: u32,
}

impl Count {
    pub fn new(probe: &Probe) -> Self {
        let at_least_one = |n: Option<i32>, default| u32::try_from(n.unwrap_or(default)).unwrap_or(1).max(1);
        Self {
            failures_needed: at_least_one(probe.failure_threshold, 3),
            successes_needed: at_least_one(probe.success_threshold, 1),
            last: None,
            run: 0,
        }
    }

    /// Takes one result; returns the verdict once enough agree.
    pub fn add(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let needed = if success { self.successes_needed } else { self.failures_needed };
        (self.run >= needed).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: i32, successes: i32, results: &str, verdicts: &str) {
        let probe =
            Probe { failure_threshold: Some(failures), success_threshold: Some(successes), ..Default::default() };
        let mut count = Count::new(&probe);
        let got: String = results
            .chars()
            .map(|c| match count.add(c == '+') {
                None => '.',
                Some(true) => '+',
                Some(false) => '-',
            })
            .collect();
        assert_eq!(got, verdicts, "{results}");
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        check(3, 1, "---", "..-");
        check(3, 1, "--+--", "..+..");
        check(3, 1, "----", "..--");
        check(1, 1, "-+-", "-+-");
        check(2, 3, "++-+++", ".....+");
        check(0, 0, "-+", "-+");
    }
}
