//! What is counted of running pods for one kind of pod, and kept while pods come and go.
//!
//! Pods of one kind (the replicas of a Deployment) ask the same, so counting anew for each would go through all pods
//! of the cluster each time. Here the counts of the last kinds stay, and every pod that comes or goes changes them.
//! Changes of nodes and namespaces, which are rare, void them all.

use crate::affinity::PodAffinity;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{Namespaces, NodeInfo, Snapshot};
use crate::spread::Spread;
use crate::terms::{VARYING, varying};
use pintle_types::Kind;
use std::hash::{DefaultHasher, Hash, Hasher};
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

#[derive(Debug)]
struct Entry {
    hash: u64,
    owner: Arc<PodInfo>,
    profile: Arc<Profile>,
    counts: Arc<Counts>,
    used: u64,
}

/// The counts of the kinds that were scheduled last.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    entries: Vec<Entry>,
    clock: u64,
}

fn hash(pod: &PodInfo) -> u64 {
    let mut hasher = DefaultHasher::new();
    pod.key.namespace.hash(&mut hasher);
    let labels = pod.pod.metadata.labels.iter().flatten();
    labels.filter(|(key, _)| !VARYING.contains(&key.as_str())).for_each(|label| label.hash(&mut hasher));
    hasher.finish()
}

/// Which of the labels that vary within a kind the pod's own rules ask for, as bits.
fn asks_for(pod: &PodInfo) -> u8 {
    let terms = pod.terms.as_ref().map_or(0, |terms| terms.varying());
    let constraints = pod.spec().topology_spread_constraints.iter().flatten();
    constraints.fold(terms, |bits, constraint| {
        let selector = constraint.label_selector.as_ref();
        let labels = selector.iter().flat_map(|s| s.match_labels.iter().flatten()).map(|(key, _)| key.as_str());
        let rules = selector.iter().flat_map(|s| s.match_expressions.iter().flatten()).map(|rule| rule.key.as_str());
        let keys = constraint.match_label_keys.iter().flatten().map(String::as_str);
        bits | varying(labels.chain(rules).chain(keys))
    })
}

/// Whether both have the same labels, as far as anybody asks for them.
fn same_labels(a: &PodInfo, b: &PodInfo, asked: u8) -> bool {
    let matters = |key: &str| VARYING.iter().position(|varying| *varying == key).is_none_or(|i| asked & (1 << i) != 0);
    let [first, second] = [a, b].map(|p| p.pod.metadata.labels.iter().flatten().filter(|(key, _)| matters(key)));
    first.eq(second)
}

/// Whether the same is counted for both: all that counting looks at is the same. `asked` are the labels that vary and
/// that running pods ask for.
fn same_kind(a: &PodInfo, b: &PodInfo, asked: u8) -> bool {
    let owner = |p: &PodInfo| {
        let owners = p.pod.metadata.owner_references.iter().flatten();
        owners.filter(|o| o.controller == Some(true)).map(|o| o.uid.clone()).next()
    };
    let (first, second) = (a.spec(), b.spec());
    a.key.namespace == b.key.namespace
        && same_labels(a, b, asked | asks_for(b))
        && first.affinity == second.affinity
        && first.topology_spread_constraints == second.topology_spread_constraints
        && first.node_selector == second.node_selector
        && first.tolerations == second.tolerations
        && owner(a) == owner(b)
}

/// Whether the pod says itself how it is to be spread.
fn spreads_itself(pod: &PodInfo) -> bool {
    pod.spec().topology_spread_constraints.as_ref().is_some_and(|list| !list.is_empty())
}

impl Kept {
    /// What is counted for the pod; nothing when nothing would ever be counted for it.
    pub(crate) fn counts(&mut self, pod: &PodInfo, profile: &Arc<Profile>, snapshot: &Snapshot) -> Option<Arc<Counts>> {
        self.clock += 1;
        let hash = hash(pod);
        let asked = snapshot.asks_for() | snapshot.selectors().asks_for();
        let known =
            |e: &&mut Entry| e.hash == hash && Arc::ptr_eq(&e.profile, profile) && same_kind(&e.owner, pod, asked);
        if let Some(entry) = self.entries.iter_mut().find(known) {
            entry.used = self.clock;
            return Some(Arc::clone(&entry.counts));
        }
        let trivial = pod.terms.is_none() && snapshot.with_terms() == 0 && !spreads_itself(pod);
        if trivial && Spread::new(pod, profile, snapshot.selectors()).is_empty() {
            return None;
        }
        let counts = Arc::new(Counts::new(pod, profile, snapshot));
        if self.entries.len() >= KINDS
            && let Some(oldest) = (0..self.entries.len()).min_by_key(|i| self.entries[*i].used)
        {
            self.entries.swap_remove(oldest);
        }
        let (owner, profile) = (Arc::new(pod.clone()), Arc::clone(profile));
        self.entries.push(Entry { hash, owner, profile, counts: Arc::clone(&counts), used: self.clock });
        Some(counts)
    }

    /// A pod came to the node (`by` is 1) or left it (-1).
    pub(crate) fn count(&mut self, node: &NodeInfo, running: &PodInfo, by: i64, names: &Namespaces) {
        for Entry { owner, profile, counts, .. } in &mut self.entries {
            Arc::make_mut(counts).count(owner, profile, node, running, by, names);
        }
    }

    /// By default, such pods are spread otherwise now.
    pub(crate) fn forget_defaults(&mut self, concerned: impl Fn(&PodInfo) -> bool) {
        self.entries.retain(|entry| spreads_itself(&entry.owner) || !concerned(&entry.owner));
    }

    /// Nodes or namespaces are others now.
    pub(crate) fn forget(&mut self) {
        self.entries.clear();
    }
}

/// Whether replacing one by the other leaves all counts as they are.
pub(crate) fn counts_the_same(old: &PodInfo, new: &PodInfo) -> bool {
    old.pod.metadata.labels == new.pod.metadata.labels
        && old.pod.is_deleting() == new.pod.is_deleting()
        && old.requests == new.requests
        && old.scored == new.scored
        && old.claims == new.claims
        && old.spec().affinity == new.spec().affinity
}
