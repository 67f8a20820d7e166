//! How long a Job waits with new pods after some have failed.

use crate::context::seconds_between;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::core::v1::{ContainerStatus, Pod};
use std::sync::Arc;
use std::time::Duration;

const FIRST_SECONDS: u64 = 10;
const LONGEST_SECONDS: u64 = 600;

/// Failures since the last success, and when the last was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    pub in_a_row: u32,
    pub last: Option<Timestamp>,
}

impl Failures {
    /// What is known after more pods ended: a success forgives the failures before it.
    pub fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let counting: Vec<Timestamp> = failed
            .iter()
            .map(|pod| finished_at(pod))
            .filter(|at| success.is_none_or(|success| *at > success))
            .collect();
        let known = if success.is_some() { Self::default() } else { self };
        let more = u32::try_from(counting.len()).unwrap_or(u32::MAX);
        Self { in_a_row: known.in_a_row.saturating_add(more), last: counting.into_iter().max().or(known.last) }
    }

    /// How long to wait still: ten seconds that double with each failure, ten minutes at most.
    pub fn wait(self, now: Timestamp) -> Duration {
        let Some(last) = self.last.filter(|_| self.in_a_row > 0) else { return Duration::ZERO };
        let delay = FIRST_SECONDS.saturating_mul(1 << (self.in_a_row - 1).min(16)).min(LONGEST_SECONDS);
        let passed = u64::try_from(seconds_between(last, now)).unwrap_or_default();
        Duration::from_secs(delay.saturating_sub(passed))
    }
}

/// When a pod ended, as well as it tells: its containers, its condition, its deletion, or else when it was made.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let ready = crate::pods::condition(pod, "Ready").filter(|ready| ready.status == "False");
    let not_ready = || Some(ready?.last_transition_time.as_ref()?.0);
    let deleted = || {
        let at = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        Timestamp::from_second(at.as_second().saturating_sub(grace)).ok()
    };
    let created = || Some(pod.metadata.creation_timestamp.as_ref()?.0);
    containers_ended(pod).or_else(not_ready).or_else(deleted).or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// When the last container ended; nothing unless all of them (sidecars too) have.
fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let initial = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    let is_sidecar = |container: &&ContainerStatus| {
        let mut known = initial.into_iter().flatten();
        known.any(|it| it.name == container.name && it.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = status.init_container_statuses.iter().flatten().filter(is_sidecar);
    let mut last = None;
    for container in status.container_statuses.iter().flatten().chain(sidecars) {
        let ended = container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0;
        last = last.max(Some(ended));
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_types::Kind;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(seconds: &[i64]) -> Vec<Arc<Pod>> {
        let pod = |second: &i64| {
            let state = json!({ "terminated": { "exitCode": 1, "finishedAt": at(*second).to_string() } });
            let container =
                json!({ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state });
            Arc::new(Pod::from_value(json!({ "status": { "containerStatuses": [container] } })).unwrap())
        };
        seconds.iter().map(pod).collect()
    }

    #[test]
    fn failures_double_the_wait_and_a_success_forgives() {
        let known = Failures { in_a_row: 2, last: Some(at(100)) };
        let cases: [(&[i64], &[i64], u32, Option<i64>); 5] = [
            (&[], &[], 2, Some(100)),
            (&[], &[110, 105], 4, Some(110)),
            (&[120], &[], 0, None),
            (&[120], &[110, 130], 1, Some(130)),
            (&[120], &[120], 0, None),
        ];
        for (succeeded, failed, in_a_row, last) in cases {
            let after = known.after(&ended(succeeded), &ended(failed));
            assert_eq!(after, Failures { in_a_row, last: last.map(at) }, "{succeeded:?} {failed:?}");
        }
        // The documentation: 10 s, 20 s, 40 s … capped at six (now ten) minutes.
        for (in_a_row, seconds) in [(0, 0), (1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (60, 600)] {
            let failures = Failures { in_a_row, last: Some(at(0)) };
            assert_eq!(failures.wait(at(0)).as_secs(), seconds);
        }
        assert_eq!(Failures { in_a_row: 2, last: Some(at(0)) }.wait(at(15)).as_secs(), 5);
        assert_eq!(Failures { in_a_row: 2, last: Some(at(0)) }.wait(at(25)).as_secs(), 0);
    }
}
