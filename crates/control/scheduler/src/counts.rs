//! What is counted of running pods for one kind of pod, and kept while pods come and go.
//!
//! Pods of one kind (the replicas of a Deployment) ask the same, so counting anew for each would go through all pods
//! of the cluster each time. Here the counts of the last kinds stay, and every pod that comes or goes changes them.
//! Changes of nodes and namespaces, which are rare, void them all.

use crate::affinity::PodAffinity;
use crate::kinds::{Kinds, counted_alike};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{Namespaces, NodeInfo, Snapshot};
use crate::spread::Spread;
use pintle_types::Kind;
use std::sync::Arc;

/// Kinds of pods whose counts are kept.
const KINDS: usize = 64;

/// What affinity between pods and spread count for one kind of pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) affinity: PodAffinity,
    pub(crate) spread: Spread,
}

impl Counts {
    fn new(pod: &PodInfo, profile: &Profile, snapshot: &Snapshot) -> Self {
        let mut out =
            Self { affinity: PodAffinity::new(pod, snapshot), spread: Spread::new(pod, profile, snapshot.selectors()) };
        let (spreads, counts_nodes) = (!out.spread.is_empty(), out.spread.counts_nodes());
        for node in snapshot.nodes().iter().filter(|n| n.node.is_some()) {
            if counts_nodes {
                out.spread.count_node(pod, node);
            }
            if pod.terms.is_some() || node.with_terms > 0 {
                for running in node.pods.values() {
                    out.affinity.count(pod, profile, node, running, 1, snapshot.namespaces());
                }
            }
        }
        // Constraints look at pods of the same namespace only.
        if spreads {
            snapshot.pods_in(&pod.key.namespace).for_each(|(node, running)| out.spread.count(pod, node, running, 1));
        }
        out
    }

    /// A running pod comes (`by` is 1) or goes (-1).
    pub(crate) fn count(
        &mut self,
        pod: &PodInfo,
        profile: &Profile,
        node: &NodeInfo,
        running: &PodInfo,
        by: i64,
        names: &Namespaces,
    ) {
        self.affinity.count(pod, profile, node, running, by, names);
        if !self.spread.is_empty() {
            self.spread.count(pod, node, running, by);
        }
    }
}

/// Whether the pod says itself how it is to be spread.
fn spreads_itself(pod: &PodInfo) -> bool {
    pod.spec().topology_spread_constraints.as_ref().is_some_and(|list| !list.is_empty())
}

/// The counts of the kinds that were scheduled last.
#[derive(Debug, Default)]
pub(crate) struct Kept(Kinds<Arc<Counts>, KINDS>);

impl Kept {
    /// What is counted for the pod; nothing when nothing would ever be counted for it.
    pub(crate) fn counts(&mut self, pod: &PodInfo, profile: &Arc<Profile>, snapshot: &Snapshot) -> Option<Arc<Counts>> {
        let asked = snapshot.asks_for() | snapshot.selectors().asks_for();
        if let Some(counts) = self.0.find(pod, profile, |owner| counted_alike(owner, pod, asked)) {
            return Some(Arc::clone(counts));
        }
        let trivial = pod.terms.is_none() && snapshot.with_terms() == 0 && !spreads_itself(pod);
        if trivial && Spread::new(pod, profile, snapshot.selectors()).is_empty() {
            return None;
        }
        let counts = Arc::new(Counts::new(pod, profile, snapshot));
        self.0.insert(pod, profile, Arc::clone(&counts));
        Some(counts)
    }

    /// A pod came to the node (`by` is 1) or left it (-1).
    pub(crate) fn count(&mut self, node: &NodeInfo, running: &PodInfo, by: i64, names: &Namespaces) {
        for (owner, profile, counts) in self.0.iter_mut() {
            Arc::make_mut(counts).count(owner, profile, node, running, by, names);
        }
    }

    /// By default, such pods are spread otherwise now.
    pub(crate) fn forget_defaults(&mut self, concerned: impl Fn(&PodInfo) -> bool) {
        self.0.retain(|owner| spreads_itself(owner) || !concerned(owner));
    }

    /// Nodes or namespaces are others now.
    pub(crate) fn forget(&mut self) {
        self.0 = Kinds::default();
    }
}

/// Whether replacing one by the other leaves all counts as they are.
pub(crate) fn counts_the_same(old: &PodInfo, new: &PodInfo) -> bool {
    old.pod.metadata.labels == new.pod.metadata.labels
        && old.pod.is_deleting() == new.pod.is_deleting()
        && old.priority == new.priority
        && old.requests == new.requests
        && old.scored == new.scored
        && old.claims == new.claims
        && old.spec().affinity == new.spec().affinity
}
