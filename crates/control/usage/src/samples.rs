//! The last two samples of a node, and the rates between them.
//!
//! Source: metrics-server, `pkg/storage`.

use crate::exposition::{Containers, Point, Sample};
use std::collections::BTreeMap;

/// A container younger than this has no rate yet, in milliseconds.
const YOUNGEST: i64 = 10_000;
/// A container that started within this time is measured from its start, in milliseconds.
const YOUNG: i64 = 15_000;

/// What something uses between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// When the later sample was taken, in milliseconds since 1970.
    pub at: i64,
    /// The time between the samples, in milliseconds.
    pub window: i64,
    /// Billionths of a core.
    pub cpu_nanos: u64,
    /// Bytes.
    pub memory: u64,
}

/// What a node told last, and what it told before.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    last: Sample,
    /// Where each rate begins: only what `last` has too.
    before: Sample,
}

impl Samples {
    /// Takes a new sample; the one before is kept for the rates.
    pub fn push(&mut self, sample: Sample) {
        let node = older(&self.before.node, &self.last.node, &sample.node);
        let mut pods = BTreeMap::new();
        for (key, containers) in &sample.pods {
            let begins = begins(self.before.pods.get(key), self.last.pods.get(key), containers);
            if !begins.is_empty() {
                pods.insert(key.clone(), begins);
            }
        }
        self.before = Sample { node, pods };
        self.last = sample;
    }

    /// What the whole node uses.
    pub fn node(&self) -> Option<Rate> {
        rate(&self.before.node, &self.last.node)
    }

    /// What the containers of a pod use, by name; nothing until all of them have been measured twice.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Vec<(&str, Rate)>> {
        let key = (namespace.to_owned(), name.to_owned());
        let before = self.before.pods.get(&key)?;
        let last = self.last.pods.get(&key)?;
        last.iter().map(|(name, point)| Some((name.as_str(), rate(before.get(name)?, point)?))).collect()
    }
}

/// The point that a rate up to `new` begins at: a kubelet may tell the same point twice.
fn older(before: &Point, last: &Point, new: &Point) -> Point {
    if new.at > last.at { *last } else { *before }
}

fn begins(before: Option<&Containers>, last: Option<&Containers>, new: &Containers) -> Containers {
    let mut begins = Containers::new();
    for (name, point) in new {
        let started = point.started.unwrap_or(i64::MIN);
        let age = point.at.saturating_sub(started);
        if (YOUNGEST..YOUNG).contains(&age) {
            begins.insert(name.clone(), Point { at: started, cpu: Some(0), ..*point });
            continue;
        }
        let Some(seen) = last.and_then(|last| last.get(name)) else { continue };
        // One that started since is another.
        if started >= seen.at {
            continue;
        }
        let begin = if point.at > seen.at { Some(seen) } else { before.and_then(|before| before.get(name)) };
        begins.extend(begin.map(|begin| (name.clone(), *begin)));
    }
    begins
}

fn rate(from: &Point, to: &Point) -> Option<Rate> {
    let window = to.at.checked_sub(from.at).filter(|window| *window > 0 && from.at > 0)?;
    // Less than before: it was counted anew.
    let used = to.cpu?.checked_sub(from.cpu?)?;
    let cpu_nanos = u128::from(used) * 1000 / u128::from(window.unsigned_abs());
    Some(Rate { at: to.at, window, cpu_nanos: u64::try_from(cpu_nanos).ok()?, memory: to.memory? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_700_000_000_000;

    /// A sample of a node and a container at a time (seconds after [`T`]): processor seconds, and the start.
    fn sample(at: i64, cpu: f64, started: i64) -> Sample {
        let (at, started) = (T + at * 1000, (T + started * 1000) as f64 / 1e3);
        let text = format!(
            "node_cpu_usage_seconds_total {cpu} {at}\nnode_memory_working_set_bytes 10 {at}\n\
             container_cpu_usage_seconds_total{{container=\"c\",namespace=\"n\",pod=\"p\"}} {cpu} {at}\n\
             container_memory_working_set_bytes{{container=\"c\",namespace=\"n\",pod=\"p\"}} 20 {at}\n\
             container_start_time_seconds{{container=\"c\",namespace=\"n\",pod=\"p\"}} {started} {at}\n"
        );
        Sample::parse(&text, 0)
    }

    fn after(list: &[Sample]) -> Samples {
        let mut samples = Samples::default();
        list.iter().for_each(|sample| samples.push(sample.clone()));
        samples
    }

    /// Window in seconds and milli-cores of the pod's container.
    fn pod(samples: &Samples) -> Option<(i64, u64)> {
        let found = samples.pod("n", "p")?;
        assert_eq!(found.len(), 1);
        Some((found[0].1.window / 1000, found[0].1.cpu_nanos / 1_000_000))
    }

    #[test]
    fn a_rate_needs_two_samples() {
        let one = after(&[sample(0, 10.0, -100)]);
        assert_eq!((one.node(), one.pod("n", "p")), (None, None));
        let two = after(&[sample(0, 10.0, -100), sample(10, 15.0, -100)]);
        let expected = Rate { at: T + 10_000, window: 10_000, cpu_nanos: 500_000_000, memory: 10 };
        assert_eq!(two.node(), Some(expected));
        assert_eq!(pod(&two), Some((10, 500)));
        assert_eq!(two.pod("n", "other"), None);
    }

    #[test]
    fn the_same_point_again_changes_nothing() {
        let same = after(&[sample(0, 10.0, -100), sample(10, 15.0, -100), sample(10, 15.0, -100)]);
        assert_eq!(pod(&same), Some((10, 500)));
        assert_eq!(same.node().map(|rate| rate.window), Some(10_000));
    }

    #[test]
    fn young_containers_are_measured_from_their_start() {
        assert_eq!(pod(&after(&[sample(0, 6.0, -12)])), Some((12, 500)));
        assert_eq!(pod(&after(&[sample(0, 6.0, -5)])), None);
    }

    #[test]
    fn a_container_that_started_again_is_another() {
        assert_eq!(pod(&after(&[sample(0, 100.0, -100), sample(30, 1.0, 5)])), None);
        assert_eq!(pod(&after(&[sample(0, 100.0, -100), sample(30, 1.0, -100)])), None);
    }
}
