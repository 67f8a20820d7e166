//! What a pod that goes leaves on its node, and whom that could help.

use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::snapshot::{NodeInfo, Snapshot};
use pintle_types::ObjectKey;

/// A pod that a node's room is promised to.
#[derive(Clone, Debug)]
struct Promise {
    key: ObjectKey,
    priority: i32,
    requests: Resources,
    /// Whether others are on their way out for it.
    awaits: bool,
}

/// The room of one node after a pod went.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    free: Resources,
    allocatable: Resources,
    /// What of the rest goes to whom, by priority: those who may have to make room.
    taken: Vec<(i32, Resources)>,
    promised: Vec<Promise>,
}

impl Room {
    pub(crate) fn of(node: &NodeInfo, snapshot: &Snapshot) -> Self {
        let mut free = node.allocatable.clone();
        free.subtract(&node.requested);
        let promise = |pod: &std::sync::Arc<PodInfo>| Promise {
            key: pod.key.clone(),
            priority: pod.priority,
            requests: pod.requests.clone(),
            awaits: snapshot.awaits_leaving(&pod.key),
        };
        let promised = snapshot.nominated_on(&node.name).iter().map(promise).collect();
        Self { free, allocatable: node.allocatable.clone(), taken: node.taken.clone(), promised }
    }

    /// Those who are promised the node's room.
    pub(crate) fn promised_to(&self) -> impl Iterator<Item = &ObjectKey> {
        self.promised.iter().map(|promise| &promise.key)
    }

    /// Whether the pod may fit now by its resources, if those make room that are less important. Whoever waits for
    /// others to leave this node has asked that already.
    pub(crate) fn may_take(&self, pod: &PodInfo) -> bool {
        let mut free = self.free.clone();
        let others = self.promised.iter().filter(|p| p.priority >= pod.priority && p.key != pod.key);
        others.for_each(|promise| free.subtract(&promise.requests));
        let awaits = self.promised.iter().any(|promise| promise.awaits && promise.key == pod.key);
        if !awaits && pod.spec().preemption_policy.as_deref() != Some("Never") {
            let lesser = self.taken.iter().filter(|(priority, _)| *priority < pod.priority);
            lesser.for_each(|(_, sum)| free.add(sum));
        }
        let need = &pod.requests;
        let fits = |need: i64, free: i64| need <= 0 || need <= free;
        // What the node does not speak of may be none of the node's business.
        let known = |name: &str| self.allocatable.others.iter().any(|(known, _)| known == name);
        fits(1, free.pods)
            && fits(need.milli_cpu, free.milli_cpu)
            && fits(need.memory, free.memory)
            && fits(need.ephemeral_storage, free.ephemeral_storage)
            && need.others.iter().all(|(name, amount)| !known(name) || fits(*amount, free.other(name)))
    }
}
