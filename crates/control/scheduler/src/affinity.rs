//! Node affinity and selectors; affinity and anti-affinity between pods.

use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{NodeSelectorTerm, PodAffinityTerm, WeightedPodAffinityTerm};
use pintle_types::selector::{LabelSelector, Operator, Requirement, node_term_matches};
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

/// A term with its selectors parsed.
struct Term<'a> {
    topology_key: &'a str,
    selector: LabelSelector,
    namespaces: Vec<&'a str>,
    all_namespaces: bool,
}

impl<'a> Term<'a> {
    /// A namespace selector that asks for labels needs the namespaces' objects; only the empty one is known here,
    /// and any other selects the owner's namespace alone.
    fn new(term: &'a PodAffinityTerm, owner: &'a PodInfo) -> Self {
        let mut namespaces: Vec<&str> = term.namespaces.iter().flatten().map(String::as_str).collect();
        let all_namespaces =
            term.namespace_selector.as_ref().is_some_and(|s| LabelSelector::from_typed(Some(s)).is_everything());
        if namespaces.is_empty() && !all_namespaces {
            namespaces.push(&owner.key.namespace);
        }
        let mut selector = LabelSelector::from_typed(term.label_selector.as_ref());
        add_label_keys(&mut selector, owner, term.match_label_keys.as_deref(), Operator::In);
        add_label_keys(&mut selector, owner, term.mismatch_label_keys.as_deref(), Operator::NotIn);
        Self { topology_key: &term.topology_key, selector, namespaces, all_namespaces }
    }

    fn matches(&self, pod: &PodInfo) -> bool {
        (self.all_namespaces || self.namespaces.contains(&pod.key.namespace.as_str()))
            && self.selector.matches_with(|key| pod.label(key))
    }
}

fn add_label_keys(selector: &mut LabelSelector, owner: &PodInfo, keys: Option<&[String]>, operator: Operator) {
    for key in keys.unwrap_or_default() {
        if let Some(value) = owner.label(key) {
            selector.requirements.push(Requirement { key: key.clone(), operator, values: vec![value.to_owned()] });
        }
    }
}

/// How often a value of a topology key occurs.
type Counts = HashMap<(String, String), i64>;

/// What affinity between pods asks of nodes, worked out once for a pod.
#[derive(Default)]
pub(crate) struct PodAffinity {
    /// For each required term: its key, and the values where a matching pod runs.
    required: Vec<(String, Counts)>,
    /// Whether the pod itself matches all of its required terms: then the first of its kind may go anywhere.
    matches_itself: bool,
    /// Values that the pod's own anti-affinity, or that of running pods, rules out.
    own_anti: Counts,
    others_anti: Counts,
    /// Weights by value, of the pod's and of running pods' preferences.
    weights: Counts,
}

fn required_terms(terms: Option<&Vec<PodAffinityTerm>>) -> &[PodAffinityTerm] {
    terms.map(Vec::as_slice).unwrap_or_default()
}

fn weighted_terms(terms: Option<&Vec<WeightedPodAffinityTerm>>) -> &[WeightedPodAffinityTerm] {
    terms.map(Vec::as_slice).unwrap_or_default()
}

fn count(counts: &mut Counts, node: &NodeInfo, key: &str, by: i64) {
    if let Some(value) = node.label(key) {
        *counts.entry((key.to_owned(), value.to_owned())).or_default() += by;
    }
}

impl PodAffinity {
    /// Looks at every running pod once, and only when the pod or any running pod has such terms.
    pub(crate) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut out = Self::default();
        let own = pod.spec().affinity.as_ref();
        let affinity = own.and_then(|a| a.pod_affinity.as_ref());
        let anti = own.and_then(|a| a.pod_anti_affinity.as_ref());
        let parse = |terms: &'_ [PodAffinityTerm]| {
            terms.iter().map(|t| (t.topology_key.clone(), t.clone())).collect::<Vec<_>>()
        };
        let required = parse(required_terms(
            affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        ));
        let anti_required =
            parse(required_terms(anti.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())));
        let mut preferred: Vec<(i64, Term<'_>)> = Vec::new();
        for (terms, sign) in [
            (affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1),
            (anti.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), -1),
        ] {
            let weighted = weighted_terms(terms);
            preferred
                .extend(weighted.iter().map(|w| (sign * i64::from(w.weight), Term::new(&w.pod_affinity_term, pod))));
        }
        let required_terms: Vec<Term<'_>> = required.iter().map(|(_, t)| Term::new(t, pod)).collect();
        let anti_terms: Vec<Term<'_>> = anti_required.iter().map(|(_, t)| Term::new(t, pod)).collect();
        out.matches_itself = required_terms.iter().all(|t| t.matches(pod));
        out.required = required.iter().map(|(key, _)| (key.clone(), Counts::new())).collect();
        for node in snapshot.nodes().iter().filter(|n| n.node.is_some()) {
            for running in node.pods.values() {
                for (term, (key, counts)) in required_terms.iter().zip(&mut out.required) {
                    if term.matches(running) {
                        count(counts, node, key, 1);
                    }
                }
                for term in anti_terms.iter().filter(|t| t.matches(running)) {
                    count(&mut out.own_anti, node, term.topology_key, 1);
                }
                for (weight, term) in preferred.iter().filter(|(_, t)| t.matches(running)) {
                    count(&mut out.weights, node, term.topology_key, *weight);
                }
                out.count_running(pod, node, running);
            }
        }
        out
    }

    /// What a running pod's own terms say of the new one.
    fn count_running(&mut self, pod: &PodInfo, node: &NodeInfo, running: &PodInfo) {
        let Some(affinity) = running.spec().affinity.as_ref() else { return };
        if let Some(anti) = &affinity.pod_anti_affinity {
            for term in required_terms(anti.required_during_scheduling_ignored_during_execution.as_ref()) {
                if Term::new(term, running).matches(pod) {
                    count(&mut self.others_anti, node, &term.topology_key, 1);
                }
            }
            for w in weighted_terms(anti.preferred_during_scheduling_ignored_during_execution.as_ref()) {
                if Term::new(&w.pod_affinity_term, running).matches(pod) {
                    count(&mut self.weights, node, &w.pod_affinity_term.topology_key, -i64::from(w.weight));
                }
            }
        }
        if let Some(attracting) = &affinity.pod_affinity {
            for w in weighted_terms(attracting.preferred_during_scheduling_ignored_during_execution.as_ref()) {
                if Term::new(&w.pod_affinity_term, running).matches(pod) {
                    count(&mut self.weights, node, &w.pod_affinity_term.topology_key, i64::from(w.weight));
                }
            }
        }
    }

    /// Why the node will not do.
    pub(crate) fn misfit(&self, node: &NodeInfo) -> Option<&'static str> {
        let found = |counts: &Counts, key: &str| {
            let value = node.label(key)?;
            counts.get(&(key.to_owned(), value.to_owned())).copied()
        };
        let met = self.required.iter().all(|(key, counts)| found(counts, key).is_some());
        if !self.required.is_empty() && !met {
            let first =
                self.matches_itself && self.required.iter().all(|(key, c)| c.is_empty() && node.label(key).is_some());
            if !first {
                return Some("node(s) didn't match pod affinity rules");
            }
        }
        let hit = |counts: &Counts| counts.keys().any(|(key, value)| node.label(key) == Some(value.as_str()));
        if hit(&self.own_anti) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        hit(&self.others_anti).then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }

    pub(crate) fn weight(&self, node: &NodeInfo) -> i64 {
        let met = self.weights.iter().filter(|((key, value), _)| node.label(key) == Some(value.as_str()));
        met.map(|(_, weight)| weight).sum()
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
