//! Node affinity and selectors; affinity and anti-affinity between pods.

use crate::domains::{Domains, keyed};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{Namespaces, NodeInfo, Snapshot};
use crate::terms::Term;
use pintle_types::k8s::api::core::v1::NodeSelectorTerm;
use pintle_types::selector::node_term_matches;

/// Whether the node has what the pod's node selector and required node affinity ask for.
pub(crate) fn node_matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selected =
        pod.spec().node_selector.iter().flatten().all(|(key, value)| node.label(key) == Some(value.as_str()));
    selected && pod.rules.as_ref().is_none_or(|rules| rules.admit(node))
}

pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    node_term_matches(term, &node.name, |key| node.label(key))
}

/// What affinity between pods asks of nodes, counted once and kept up while pods come and go.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodAffinity {
    /// For each required term: pods that match *all* required terms.
    required: Vec<Domains>,
    /// Whether the pod itself matches all of its required terms: then the first of its kind may go anywhere.
    matches_itself: bool,
    /// Pods that the pod's own anti-affinity, or whose anti-affinity, rules each other out.
    own_anti: Vec<Domains>,
    others_anti: Vec<Domains>,
    /// Weights of the pod's preferences, and of running pods' towards it.
    preferred: Vec<Domains>,
}

impl PodAffinity {
    /// Nothing counted yet.
    pub(crate) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut out = Self::default();
        if let Some(terms) = &pod.terms {
            out.required = terms.required.iter().map(|t| Domains::new(&t.topology_key)).collect();
            out.matches_itself = terms.required.iter().all(|t| t.matches(&pod.key, &pod.pod, snapshot.namespaces()));
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
        if let Some(terms) = &pod.terms {
            let matches = |t: &Term| t.matches(&running.key, &running.pod, names);
            if !terms.required.is_empty() && terms.required.iter().all(matches) {
                self.required.iter_mut().for_each(|domains| domains.add(node, by));
            }
            for term in terms.anti.iter().filter(|t| matches(t)) {
                keyed(&mut self.own_anti, &term.topology_key).add(node, by);
            }
            for term in terms.preferred.iter().filter(|t| matches(t)) {
                keyed(&mut self.preferred, &term.topology_key).add(node, term.weight * by);
            }
        }
        let Some(theirs) = &running.terms else { return };
        let mean = |t: &&Term| t.matches(&pod.key, &pod.pod, names);
        for term in theirs.anti.iter().filter(mean) {
            keyed(&mut self.others_anti, &term.topology_key).add(node, by);
        }
        let own = pod.terms.as_ref().is_some_and(|t| !t.preferred.is_empty());
        if profile.ignores_preferences_of_others && !own {
            return;
        }
        if profile.required_affinity_weight != 0 {
            for term in theirs.required.iter().filter(mean) {
                keyed(&mut self.preferred, &term.topology_key).add(node, profile.required_affinity_weight * by);
            }
        }
        for term in theirs.preferred.iter().filter(mean) {
            keyed(&mut self.preferred, &term.topology_key).add(node, term.weight * by);
        }
    }

    /// Whether it could rule out any node.
    pub(crate) fn may_refuse(&self) -> bool {
        !(self.required.is_empty() && self.own_anti.is_empty() && self.others_anti.is_empty())
    }

    /// Why the node will not do, and whether it could help that pods of the node go.
    pub(crate) fn misfit(&self, node: &NodeInfo) -> Option<(&'static str, bool)> {
        let labelled = self.required.iter().all(|domains| node.label(&domains.key).is_some());
        let met = self.required.iter().all(|domains| domains.at(node) > 0);
        let first = || self.matches_itself && self.required.iter().all(Domains::is_nothing);
        if !labelled || !(met || first()) {
            return Some(("node(s) didn't match pod affinity rules", false));
        }
        if self.own_anti.iter().any(|domains| domains.at(node) > 0) {
            return Some(("node(s) didn't match pod anti-affinity rules", true));
        }
        let hit = self.others_anti.iter().any(|domains| domains.at(node) > 0);
        hit.then_some(("node(s) didn't satisfy existing pods anti-affinity rules", true))
    }

    /// Whether any node is preferred to others.
    pub(crate) fn prefers(&self) -> bool {
        !self.preferred.is_empty()
    }

    /// How much company that the pod likes, or that likes it, is near the node.
    pub(crate) fn weight(&self, node: &NodeInfo) -> i64 {
        self.preferred.iter().map(|domains| domains.at(node)).sum()
    }
}
