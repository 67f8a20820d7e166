//! Node affinity and selectors; affinity and anti-affinity between pods.

use crate::pod::PodInfo;
use crate::snapshot::{Namespaces, NodeInfo, Snapshot};
use crate::terms::Term;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::NodeSelectorTerm;
use pintle_types::selector::node_term_matches;
use std::collections::{BTreeMap, HashMap};

/// Whether the node has what the pod's node selector and required node affinity ask for.
pub(crate) fn node_matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let spec = pod.spec();
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.label(key) == Some(value.as_str()));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    node_term_matches(term, &node.name, |key| node.label(key))
}

/// The weight of the preferred node affinity that a node meets.
pub(crate) fn preferred_weight(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let affinity = pod.spec().affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let met = preferred.unwrap_or_default().iter().filter(|p| term_matches(&p.preference, node));
    met.map(|p| i64::from(p.weight)).sum()
}

/// How many pods (or how much weight) there are by the value of one topology key.
#[derive(Clone, Debug)]
struct Counts {
    key: String,
    values: HashMap<String, i64>,
}

impl Counts {
    fn add(&mut self, node: &NodeInfo, by: i64) {
        let Some(value) = node.label(&self.key) else { return };
        match self.values.get_mut(value) {
            Some(count) => *count += by,
            None => drop(self.values.insert(value.to_owned(), by)),
        }
    }

    fn at(&self, node: &NodeInfo) -> i64 {
        node.label(&self.key).and_then(|value| self.values.get(value)).copied().unwrap_or(0)
    }
}

/// The counts of that key, made when there are none yet.
fn keyed<'a>(all: &'a mut Vec<Counts>, key: &str) -> &'a mut Counts {
    let index = all.iter().position(|c| c.key == key).unwrap_or_else(|| {
        all.push(Counts { key: key.to_owned(), values: HashMap::new() });
        all.len() - 1
    });
    &mut all[index]
}

/// What affinity between pods asks of nodes, worked out once for a pod and kept up when pods are tried away.
#[derive(Clone, Default)]
pub(crate) struct PodAffinity {
    /// For each required term: pods that match *all* required terms.
    required: Vec<Counts>,
    /// Whether the pod itself matches all of its required terms: then the first of its kind may go anywhere.
    matches_itself: bool,
    /// Pods that the pod's own anti-affinity, or whose anti-affinity, rules each other out.
    own_anti: Vec<Counts>,
    others_anti: Vec<Counts>,
}

/// Nodes of which the running pods can matter: all for a pod with terms of its own, else those where a pod has any.
fn concerned<'a>(pod: &PodInfo, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a NodeInfo> {
    let all = pod.terms.is_some();
    snapshot.nodes().iter().filter(move |n| n.node.is_some() && (all || n.with_terms > 0))
}

impl PodAffinity {
    pub(crate) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut out = Self::default();
        if let Some(terms) = &pod.terms {
            let empty = |t: &Term| Counts { key: t.topology_key.clone(), values: HashMap::new() };
            out.required = terms.required.iter().map(empty).collect();
            out.matches_itself = terms.required.iter().all(|t| t.matches(&pod.key, &pod.pod, snapshot.namespaces()));
        } else if snapshot.with_terms() == 0 {
            return out;
        }
        for node in concerned(pod, snapshot) {
            for running in node.pods.values() {
                out.count(pod, node, running, 1, snapshot.namespaces());
            }
        }
        out
    }

    /// A running pod comes (`by` is 1) or goes (-1).
    pub(crate) fn count(&mut self, pod: &PodInfo, node: &NodeInfo, running: &PodInfo, by: i64, names: &Namespaces) {
        if let Some(terms) = &pod.terms {
            let matches = |t: &Term| t.matches(&running.key, &running.pod, names);
            if !terms.required.is_empty() && terms.required.iter().all(matches) {
                self.required.iter_mut().for_each(|counts| counts.add(node, by));
            }
            for term in terms.anti.iter().filter(|t| matches(t)) {
                keyed(&mut self.own_anti, &term.topology_key).add(node, by);
            }
        }
        let theirs = running.terms.iter().flat_map(|t| &t.anti);
        for term in theirs.filter(|t| t.matches(&pod.key, &pod.pod, names)) {
            keyed(&mut self.others_anti, &term.topology_key).add(node, by);
        }
    }

    /// Why the node will not do, and whether it could help that pods of the node go.
    pub(crate) fn misfit(&self, node: &NodeInfo) -> Option<(&'static str, bool)> {
        let labelled = self.required.iter().all(|counts| node.label(&counts.key).is_some());
        let met = self.required.iter().all(|counts| counts.at(node) > 0);
        let first = || self.matches_itself && self.required.iter().all(|c| c.values.values().all(|n| *n <= 0));
        if !labelled || !(met || first()) {
            return Some(("node(s) didn't match pod affinity rules", false));
        }
        if self.own_anti.iter().any(|counts| counts.at(node) > 0) {
            return Some(("node(s) didn't match pod anti-affinity rules", true));
        }
        let hit = self.others_anti.iter().any(|counts| counts.at(node) > 0);
        hit.then_some(("node(s) didn't satisfy existing pods anti-affinity rules", true))
    }
}

/// What a required term of a running pod weighs when nodes are scored for a pod that it matches.
const REQUIRED_WEIGHT: i64 = 1;

/// Weights of the pod's preferences, and of running pods' towards it.
pub(crate) struct Preferences(Vec<Counts>);

impl Preferences {
    pub(crate) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut counts = Vec::new();
        let names = snapshot.namespaces();
        let own = pod.terms.as_ref().map(|t| t.preferred.as_slice()).unwrap_or_default();
        if own.is_empty() && snapshot.with_terms() == 0 {
            return Self(counts);
        }
        for node in concerned(pod, snapshot) {
            for running in node.pods.values() {
                for term in own.iter().filter(|t| t.matches(&running.key, &running.pod, names)) {
                    keyed(&mut counts, &term.topology_key).add(node, term.weight);
                }
                let Some(theirs) = &running.terms else { continue };
                for term in theirs.preferred.iter().filter(|t| t.matches(&pod.key, &pod.pod, names)) {
                    keyed(&mut counts, &term.topology_key).add(node, term.weight);
                }
                for term in theirs.required.iter().filter(|t| t.matches(&pod.key, &pod.pod, names)) {
                    keyed(&mut counts, &term.topology_key).add(node, REQUIRED_WEIGHT);
                }
            }
        }
        Self(counts)
    }

    pub(crate) fn weight(&self, node: &NodeInfo) -> i64 {
        self.0.iter().map(|counts| counts.at(node)).sum()
    }
}

/// Labels of a pod that select others of its kind: those of a common owner.
pub(crate) fn sibling_labels(pod: &PodInfo) -> Option<BTreeMap<String, String>> {
    let owner = pod.pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    let labels = pod.pod.metadata.labels.clone()?;
    let varying = [
        "apps.kubernetes.io/pod-index",
        "statefulset.kubernetes.io/pod-name",
        "batch.kubernetes.io/job-completion-index",
    ];
    let owned = matches!(owner.kind.as_str(), "ReplicaSet" | "ReplicationController" | "StatefulSet");
    owned.then(|| labels.into_iter().filter(|(key, _)| !varying.contains(&key.as_str())).collect())
}

/// Whether both live in one namespace, within which topology spread counts.
pub(crate) fn same_namespace(a: &PodInfo, b: &PodInfo) -> bool {
    a.pod.namespace() == b.pod.namespace()
}
