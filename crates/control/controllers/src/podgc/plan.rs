//! Decides which pods no kubelet will ever remove, and of those that have finished which are too many. Source of the
//! rules: upstream's pod garbage collector.

use crate::node::{is_out_of_service, is_ready};
use crate::pods;
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::{Kind, ObjectKey, Time};
use std::collections::BTreeSet;

/// Finished pods that are kept, as by upstream's `--terminated-pod-gc-threshold`.
pub const KEPT: usize = 12_500;

/// Why nobody else will remove a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// It was deleted before it had a node.
    Unscheduled,
    /// Its node is not there.
    Orphaned,
    /// It was deleted, and its node's kubelet is away for good: somebody said so.
    OutOfService,
}

/// Whether the pod is left over; `node` is the one that it names, if that is there.
pub fn leftover(pod: &Pod, node: Option<&Node>) -> Option<Leftover> {
    let deleting = pod.is_deleting();
    match node {
        _ if pods::node_name(pod).is_empty() => deleting.then_some(Leftover::Unscheduled),
        None => Some(Leftover::Orphaned),
        Some(node) => (deleting && is_lost(node)).then_some(Leftover::OutOfService),
    }
}

/// Whether deleted pods of the node have to be removed for its kubelet.
pub fn is_lost(node: &Node) -> bool {
    is_out_of_service(node) && !is_ready(node)
}

/// The place of a pod among the finished ones: evicted ones go first, then the oldest.
type Rank = (bool, Option<Time>, ObjectKey);

fn rank(pod: &Pod) -> Rank {
    let evicted = pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
    (!evicted, pod.metadata.creation_timestamp.clone(), pod.key())
}

/// The finished pods, in the order in which they go.
#[derive(Debug)]
pub struct Finished {
    kept: usize,
    pods: BTreeSet<Rank>,
}

impl Finished {
    pub fn keeping(kept: usize) -> Self {
        Self { kept, pods: BTreeSet::new() }
    }

    /// Notes a change of a pod. Returns those that are too many by now.
    pub fn change(&mut self, old: Option<&Pod>, new: Option<&Pod>) -> Vec<ObjectKey> {
        if let Some(old) = old.filter(|pod| pods::is_finished(pod)) {
            self.pods.remove(&rank(old));
        }
        match new.filter(|pod| pods::is_finished(pod)) {
            Some(new) if self.pods.insert(rank(new)) => self.surplus().map(|(.., key)| key.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the pod is one of those that are too many.
    pub fn is_surplus(&self, pod: &Pod) -> bool {
        let rank = rank(pod);
        self.surplus().any(|other| *other == rank)
    }

    fn surplus(&self) -> impl Iterator<Item = &Rank> {
        self.pods.iter().take(self.pods.len().saturating_sub(self.kept))
    }
}
