//! Says which pods go when a critical pod finds a full node: as few as can be, of the lower classes first. Pure but for
//! the wait for their end.
//!
//! Source: `pkg/kubelet/preemption`.

use crate::eviction::is_critical;
use crate::reference::spec;
use crate::resources::{Qos, pod_request, qos_class};
use crate::status::{Ended, PREEMPTED};
use pintle_types::k8s::api::core::v1::Pod;
use std::cmp::Reverse;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What a pod that goes is told.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
/// The least time that pods get to make room.
const LEAST_WAIT: Duration = Duration::from_secs(10);

/// A resource of which a node has less than a pod asks for: thousandths of processors, whole units of all else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub resource: String,
    pub requested: u64,
    pub used: u64,
    pub capacity: u64,
}

impl Shortage {
    /// The pod is refused for it.
    pub fn refusal(&self) -> Ended {
        let Self { resource, requested, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Ended { reason: format!("OutOf{resource}"), message }
    }
}

/// Why a pod that was preempted has ended.
pub fn ended() -> Ended {
    Ended { reason: PREEMPTED.to_owned(), message: MESSAGE.to_owned() }
}

/// Who goes for a pod: none when nothing is short.
#[derive(Debug, Default)]
pub struct Victims {
    pub pods: Vec<Arc<Pod>>,
    /// The first resource that was short.
    pub resource: String,
}

impl Victims {
    /// Those that a critical pod displaces among the others on its node, or why no choice of them is enough.
    pub fn of(pod: &Pod, others: &[Arc<Pod>], short: &[Shortage]) -> Result<Self, Ended> {
        let Some(first) = short.first() else { return Ok(Self::default()) };
        let needs = Needs::of(short);
        let class = |class| -> Vec<Arc<Pod>> {
            let goes = |other: &&Arc<Pod>| may_displace(pod, other) && qos_class(other) == class;
            others.iter().filter(goes).cloned().collect()
        };
        let (effort, burstable) = (class(Qos::BestEffort), class(Qos::Burstable));
        let guaranteed = class(Qos::Guaranteed);
        let left = needs.without(effort.iter().chain(&burstable).chain(&guaranteed));
        if !left.0.is_empty() {
            return Err(left.refusal());
        }
        // Of each class only what all the lower ones together can't give.
        let guaranteed = nearest(guaranteed, needs.without(effort.iter().chain(&burstable)));
        let burstable = nearest(burstable, needs.without(effort.iter().chain(&guaranteed)));
        let effort = nearest(effort, needs.without(burstable.iter().chain(&guaranteed)));
        Ok(Self { pods: [effort, burstable, guaranteed].concat(), resource: first.resource.clone() })
    }
}

/// Whether a pod may take the place of another.
fn may_displace(pod: &Pod, other: &Pod) -> bool {
    let is_higher = || spec(pod).priority.zip(spec(other).priority).is_some_and(|(own, other)| own > other);
    (is_critical(pod) && !is_critical(other)) || is_higher()
}

/// What is still missing, by resource.
struct Needs(Vec<(String, u64)>);

impl Needs {
    fn of(short: &[Shortage]) -> Self {
        let missing = |s: &Shortage| (s.resource.clone(), (s.requested + s.used).saturating_sub(s.capacity));
        Self(short.iter().map(missing).collect())
    }

    /// What is missing once those pods are gone.
    fn without<'a>(&self, pods: impl Iterator<Item = &'a Arc<Pod>> + Clone) -> Self {
        let left = self.0.iter().map(|(resource, missing)| {
            let freed: u64 = pods.clone().map(|pod| pod_request(pod, resource)).sum();
            (resource.clone(), missing.saturating_sub(freed))
        });
        Self(left.filter(|(_, missing)| *missing > 0).collect())
    }

    /// How much a pod leaves missing: each resource counts alike, however large its numbers.
    fn distance(&self, pod: &Pod) -> f64 {
        let part = |(resource, missing): &(String, u64)| {
            let left = missing.saturating_sub(pod_request(pod, resource));
            (left as f64 / *missing as f64).powi(2)
        };
        self.0.iter().map(part).sum()
    }

    fn refusal(&self) -> Ended {
        let list: String =
            self.0.iter().map(|(resource, missing)| format!("(res: {resource}, q: {missing}), ")).collect();
        let message = format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of \
             pods to preempt: no set of running pods found to reclaim resources: [{list}]"
        );
        Ended { reason: "UnexpectedAdmissionError".to_owned(), message }
    }
}

/// The pods of one class that go, until nothing is missing: each time the one that leaves least missing, of those the
/// one that asks for least, and of those the last.
fn nearest(mut pods: Vec<Arc<Pod>>, mut needs: Needs) -> Vec<Arc<Pod>> {
    let mut chosen = Vec::new();
    while !needs.0.is_empty() {
        let rank = |(at, pod): (usize, &Arc<Pod>)| {
            let sizes = (pod_request(pod, "memory"), pod_request(pod, "cpu"), Reverse(at));
            (needs.distance(pod), sizes)
        };
        let first = pods.iter().enumerate().map(rank).min_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        let Some((_, (_, _, Reverse(at)))) = first else { break };
        let pod = pods.swap_remove(at);
        needs = needs.without(std::iter::once(&pod));
        chosen.push(pod);
    }
    chosen
}

/// What a critical pod waits for: the ends of those that go for it.
#[derive(Debug)]
pub struct Room {
    /// Closed when all have ended.
    all: mpsc::Receiver<Infallible>,
    most: Duration,
}

impl Room {
    /// That pods make with so many seconds of grace each; also returns what they hold until they have ended.
    pub fn of(graces: impl Iterator<Item = i64>) -> (Self, mpsc::Sender<Infallible>) {
        let (held, all) = mpsc::channel(1);
        let longest = u64::try_from(graces.max().unwrap_or(0)).unwrap_or(0);
        let most = Duration::from_secs(longest.saturating_add(longest / 2)).max(LEAST_WAIT);
        (Self { all, most }, held)
    }

    /// Waits until they have ended, or have had their time: what they still hold is found out by who comes then.
    pub async fn wait(mut self) {
        if timeout(self.most, self.all.recv()).await.is_err() {
            tracing::warn!("pods that were preempted have not ended in their time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::named;
    use serde_json::json;

    /// `name cpu memory [class]`, in thousandths and MiB: guaranteed with `g`; a number is a priority.
    fn a_pod(text: &str) -> Arc<Pod> {
        let words: Vec<&str> = text.split(' ').collect();
        let amounts = match words[1..3] {
            ["0", "0"] => json!({}),
            [cpu, memory] => json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")}),
            _ => panic!("a pod is `name cpu memory`: {text}"),
        };
        let kind = if words.contains(&"g") { "limits" } else { "requests" };
        let priority = words.last().and_then(|word| word.strip_prefix('p')?.parse::<i32>().ok());
        let spec =
            json!({"priority": priority.unwrap_or(0), "containers": [{"name": "c", "resources": {kind: amounts}}]});
        Arc::new(named(words[0], words[0], spec))
    }

    const EFFORT: &str = "effort 0 0";
    const BURST: &str = "burst 100 100";
    const LARGE_BURST: &str = "large-burst 300 300";
    const SURE: &str = "sure 100 100 g";
    const LARGE_SURE: &str = "large-sure 300 300 g";
    const ALL: [&str; 5] = [EFFORT, BURST, LARGE_BURST, SURE, LARGE_SURE];
    const CLUSTER_CRITICAL: &str = "cluster 100 100 p2000000000";
    const NODE_CRITICAL: &str = "node 100 100 p2000001000";

    /// Who goes for a pod when so much cpu, memory in MiB and pods are missing; `None` when that is not to be had.
    fn check(pod: &str, others: &[&str], missing: [u64; 3], expected: Option<&[&str]>) {
        let others: Vec<Arc<Pod>> = others.iter().map(|text| a_pod(text)).collect();
        let units = [("pods", missing[2]), ("cpu", missing[0]), ("memory", missing[1] << 20)];
        let short: Vec<Shortage> = units
            .into_iter()
            .filter(|(_, missing)| *missing > 0)
            .map(|(resource, requested)| Shortage { resource: resource.into(), requested, used: 5, capacity: 5 })
            .collect();
        let found = Victims::of(&a_pod(pod), &others, &short).ok();
        let names = found.map(|victims| victims.pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect());
        let expected: Option<Vec<String>> = expected.map(|list| list.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names, expected, "{pod} {others:?} {missing:?}");
    }

    #[test]
    fn as_few_pods_go_as_can_be_and_low_classes_first() {
        for (others, missing, expected) in [
            (&[] as &[&str], [0, 0, 0], Some(&[] as &[&str])),
            (&[], [0, 0, 1], None),
            (&[EFFORT], [0, 1, 0], None),
            (&[BURST], [100, 100, 1], Some(&["burst"])),
            (&[BURST], [200, 200, 2], None),
            (&[BURST, EFFORT], [0, 0, 1], Some(&["effort"])),
            (&[BURST, SURE], [0, 0, 1], Some(&["burst"])),
            (&[SURE, EFFORT, BURST], [0, 0, 2], Some(&["effort", "burst"])),
            (&[EFFORT, LARGE_BURST, BURST], [100, 100, 0], Some(&["burst"])),
            (&[EFFORT, BURST, LARGE_BURST], [150, 150, 0], Some(&["large-burst"])),
            (&ALL, [350, 350, 0], Some(&["large-burst", "burst"])),
            // The guaranteed one has to go, and is enough with the larger of the burstable ones.
            (&ALL, [0, 550, 0], Some(&["large-burst", "large-sure"])),
            (&ALL, [800, 800, 5], Some(&["effort", "large-burst", "burst", "large-sure", "sure"])),
            (&ALL, [801, 0, 0], None),
        ] {
            check(CLUSTER_CRITICAL, others, missing, expected);
        }
    }

    #[test]
    fn those_that_are_as_near_go_by_what_they_ask_for_and_then_the_last() {
        for (others, missing, expected) in [
            (&["a 200 300", "b 200 200", "c 300 200"], [100, 0, 0], &["b"]),
            (&["a 100 100", "b 100 100", "c 100 100"], [50, 50, 0], &["c"]),
            // Half of two is nearer than all of one.
            (&["a 100 0", "b 51 50", "c 0 100"], [100, 100, 0], &["b"]),
        ] as [(&[&str], [u64; 3], &[&str]); 3]
        {
            let others: Vec<Arc<Pod>> = others.iter().map(|text| a_pod(text)).collect();
            let needs = Needs(vec![("cpu".into(), missing[0]), ("memory".into(), missing[1] << 20)]).without([].iter());
            let first = nearest(others, needs).remove(0);
            assert_eq!([first.metadata.name.as_deref().unwrap()], *expected);
        }
    }

    #[test]
    fn critical_pods_go_only_for_higher_ones() {
        check(NODE_CRITICAL, &[CLUSTER_CRITICAL], [100, 0, 0], Some(&["cluster"]));
        check(CLUSTER_CRITICAL, &[NODE_CRITICAL], [100, 0, 0], None);
        check(CLUSTER_CRITICAL, &[CLUSTER_CRITICAL], [100, 0, 0], None);
        let mirror =
            json!({"metadata": {"annotations": {"kubernetes.io/config.source": "file"}}, "spec": {"containers": []}});
        let by_file: Pod = serde_json::from_value(mirror).unwrap();
        assert!(may_displace(&by_file, &a_pod(BURST)) && !may_displace(&by_file, &a_pod(NODE_CRITICAL)));
        assert!(!may_displace(&a_pod(NODE_CRITICAL), &by_file), "one without a priority stays");
    }

    #[test]
    fn what_is_missing_is_told_when_no_choice_is_enough() {
        let short = [Shortage { resource: "cpu".into(), requested: 400, used: 1900, capacity: 2000 }];
        let refused = Victims::of(&a_pod(CLUSTER_CRITICAL), &[a_pod(BURST)], &short).unwrap_err();
        assert_eq!(refused.reason, "UnexpectedAdmissionError");
        assert_eq!(
            refused.message,
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of \
             pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 200), ]"
        );
        assert_eq!(
            short[0].refusal().message,
            "Node didn't have enough resource: cpu, requested: 400, used: 1900, capacity: 2000"
        );
    }
}
