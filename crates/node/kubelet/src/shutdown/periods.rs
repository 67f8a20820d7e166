//! How long pods get when the machine ends: settings as upstream's `KubeletConfiguration` has them, and who gets what.
//!
//! Pure. Source: KEP-2000, KEP-2712.

use crate::duration::go;
use crate::reference::spec;
use pintle_types::k8s::api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;

/// Pods from here on are critical: `system-cluster-critical`.
const CRITICAL: i32 = 2_000_000_000;

/// The time of pods of a priority, up to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub priority: i32,
    pub seconds: u32,
}

impl Period {
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

/// What is set; nothing by default: then pods get no time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownOptions {
    /// `shutdownGracePeriod`: of all pods together.
    pub grace: Duration,
    /// `shutdownGracePeriodCriticalPods`: the part of it that is left to critical pods.
    pub critical: Duration,
    /// `shutdownGracePeriodByPodPriority`, in its place, the lowest priority first.
    pub by_priority: Vec<Period>,
}

/// Settings that contradict each other or can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShutdownError {
    #[error("invalid configuration: shutdownGracePeriod {{{0}}} must be >= shutdownGracePeriodCriticalPods {{{1}}}")]
    Order(String, String),
    #[error("invalid configuration: {0} {{{1}}} must be either zero or otherwise >= 1 sec")]
    Short(&'static str, String),
    #[error(
        "invalid configuration: Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the \
         same time"
    )]
    Both,
    #[error("invalid grace period {0:?}: expected <priority>=<seconds>, such as 0=60,2000000000=10")]
    Syntax(String),
}

impl ShutdownOptions {
    /// # Errors
    /// Upstream's rules are broken.
    pub fn new(grace: Duration, critical: Duration, by_priority: &str) -> Result<Self, ShutdownError> {
        let parts = by_priority.split(',').map(str::trim).filter(|part| !part.is_empty());
        let mut by_priority = parts.map(period).collect::<Result<Vec<_>, _>>()?;
        by_priority.sort_by_key(|period| period.priority);
        if grace < critical {
            return Err(ShutdownError::Order(go(grace), go(critical)));
        }
        for (name, value) in [("shutdownGracePeriod", grace), ("shutdownGracePeriodCriticalPods", critical)] {
            if !value.is_zero() && value < Duration::from_secs(1) {
                return Err(ShutdownError::Short(name, go(value)));
            }
        }
        if !by_priority.is_empty() && !grace.is_zero() {
            return Err(ShutdownError::Both);
        }
        Ok(Self { grace, critical, by_priority })
    }

    /// The times by priority, the lowest first; none when pods get no time.
    pub(crate) fn periods(&self) -> Vec<Period> {
        if !self.by_priority.is_empty() || self.grace.is_zero() {
            return self.by_priority.clone();
        }
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        vec![
            Period { priority: 0, seconds: seconds(self.grace - self.critical) },
            Period { priority: CRITICAL, seconds: seconds(self.critical) },
        ]
    }
}

fn period(text: &str) -> Result<Period, ShutdownError> {
    let read = |(priority, seconds): (&str, &str)| {
        Some(Period { priority: priority.trim().parse().ok()?, seconds: seconds.trim().parse().ok()? })
    };
    text.split_once('=').and_then(read).ok_or_else(|| ShutdownError::Syntax(text.to_owned()))
}

/// The pods of each period, in the order in which they end. Those below the lowest priority belong to it.
pub(crate) fn groups(periods: &[Period], pods: Vec<Arc<Pod>>) -> Vec<(Period, Vec<Arc<Pod>>)> {
    let mut groups: Vec<(Period, Vec<Arc<Pod>>)> = periods.iter().map(|period| (*period, Vec::new())).collect();
    for pod in pods {
        let priority = spec(&pod).priority.unwrap_or(0);
        let above = periods.partition_point(|period| period.priority <= priority);
        if let Some((_, group)) = groups.get_mut(above.saturating_sub(1)) {
            group.push(pod);
        }
    }
    groups.retain(|(_, pods)| !pods.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::named;
    use pintle_types::Kind;
    use serde_json::json;

    fn options(grace: u64, critical: u64, by_priority: &str) -> Result<ShutdownOptions, String> {
        let (grace, critical) = (Duration::from_millis(grace), Duration::from_millis(critical));
        ShutdownOptions::new(grace, critical, by_priority).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_become_periods() {
        let periods = |grace, critical, text| {
            let periods = options(grace, critical, text).unwrap().periods();
            periods.iter().map(|p| (p.priority, p.seconds)).collect::<Vec<_>>()
        };
        assert_eq!(periods(0, 0, ""), []);
        assert_eq!(periods(30_000, 10_000, ""), [(0, 20), (CRITICAL, 10)]);
        assert_eq!(periods(0, 0, "100=5, -10=60"), [(-10, 60), (100, 5)]);
    }

    #[test]
    fn wrong_settings_are_refused_in_upstreams_words() {
        for (grace, critical, text, expected) in [
            (
                10_000,
                30_000,
                "",
                "invalid configuration: shutdownGracePeriod {10s} must be >= shutdownGracePeriodCriticalPods {30s}",
            ),
            (
                500,
                0,
                "",
                "invalid configuration: shutdownGracePeriod {500ms} must be either zero or otherwise >= 1 sec",
            ),
            (
                2000,
                500,
                "",
                "invalid configuration: shutdownGracePeriodCriticalPods {500ms} must be either zero or otherwise >= 1 \
                 sec",
            ),
            (
                2000,
                0,
                "0=1",
                "invalid configuration: Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod \
                 at the same time",
            ),
            (
                0,
                0,
                "high=1",
                "invalid grace period \"high=1\": expected <priority>=<seconds>, such as 0=60,2000000000=10",
            ),
        ] {
            assert_eq!(options(grace, critical, text).unwrap_err(), expected);
        }
    }

    #[test]
    fn pods_belong_to_the_nearest_priority_below() {
        let pod = |name: &str, priority: Option<i32>| {
            Arc::new(named(name, name, json!({"priority": priority, "containers": [{"name": "c"}]})))
        };
        let periods = options(0, 0, "0=10,100=20,1000=30").unwrap().periods();
        let pods = vec![
            pod("low", Some(-5)),
            pod("none", None),
            pod("just", Some(100)),
            pod("below", Some(99)),
            pod("high", Some(CRITICAL)),
        ];
        let groups = groups(&periods, pods);
        let shown: Vec<(i32, Vec<&str>)> = groups
            .iter()
            .map(|(period, pods)| (period.priority, pods.iter().map(|pod| pod.name()).collect()))
            .collect();
        assert_eq!(shown, [(0, vec!["low", "none", "below"]), (100, vec!["just"]), (1000, vec!["high"])]);
    }
}
