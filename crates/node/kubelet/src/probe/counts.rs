//! Counts the results of probes, for the metrics; a worker's counts go with it.

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// By the labels of a worker: successes and failures.
#[derive(Default)]
pub struct ProbeCounts(Mutex<BTreeMap<String, [u64; 2]>>);

const RESULTS: [&str; 2] = ["successful", "failed"];

impl ProbeCounts {
    pub fn add(&self, worker: &str, success: bool) {
        let mut all = self.0.lock();
        match all.get_mut(worker) {
            Some(counts) => counts[usize::from(!success)] += 1,
            None => {
                all.insert(worker.to_owned(), if success { [1, 0] } else { [0, 1] });
            }
        }
    }

    pub fn forget(&self, worker: &str) {
        self.0.lock().remove(worker);
    }

    /// Labels and numbers of all.
    pub fn samples(&self) -> Vec<(String, u64)> {
        let with_result = |(worker, counts): (&String, &[u64; 2])| {
            let pairs: Vec<_> = RESULTS.iter().zip(*counts).filter(|(_, n)| *n > 0).collect();
            pairs.into_iter().map(|(result, n)| (format!("{worker},result=\"{result}\""), n)).collect::<Vec<_>>()
        };
        self.0.lock().iter().flat_map(with_result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_with_their_worker() {
        let counts = ProbeCounts::default();
        counts.add("a", true);
        counts.add("a", true);
        counts.add("a", false);
        counts.add("b", false);
        let text = |(labels, n): (String, u64)| format!("{labels} {n}");
        let shown: Vec<String> = counts.samples().into_iter().map(text).collect();
        assert_eq!(shown, ["a,result=\"successful\" 2", "a,result=\"failed\" 1", "b,result=\"failed\" 1"]);
        counts.forget("a");
        assert_eq!(counts.samples().len(), 1);
    }
}
