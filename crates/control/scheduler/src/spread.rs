//! Topology spread: how evenly the pods that a constraint selects lie over zones and hosts.
//!
//! Source: KEP-895. Pods of a ReplicaSet, StatefulSet or ReplicationController without constraints of their own are
//! spread softly over hosts (skew 3) and zones (skew 5), upstream's defaults.

use crate::affinity::{node_matches, same_namespace, sibling_labels};
use crate::filter::tolerated;
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use pintle_types::k8s::api::core::v1::TopologySpreadConstraint;
use pintle_types::selector::{LabelSelector, Operator, Requirement};
use std::collections::HashMap;

#[derive(Clone)]
struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: i64,
    selector: LabelSelector,
    honor_affinity: bool,
    honor_taints: bool,
    /// Matching pods by the value of the key, over the eligible nodes.
    counts: HashMap<String, i64>,
}

impl Constraint {
    fn selects(&self, pod: &PodInfo) -> bool {
        self.selector.matches_with(|key| pod.label(key))
    }

    fn counts_pod(&self, owner: &PodInfo, pod: &PodInfo) -> bool {
        // An empty selector counts nobody.
        !self.selector.is_everything()
            && same_namespace(pod, owner)
            && pod.pod.metadata.deletion_timestamp.is_none()
            && self.selects(pod)
    }

    fn counts_node(&self, owner: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honor_affinity || node_matches(owner, node)) && (!self.honor_taints || tolerated(owner, node))
    }

    fn matching(&self, owner: &PodInfo, node: &NodeInfo) -> i64 {
        node.pods.values().filter(|p| self.counts_pod(owner, p)).count() as i64
    }
}

/// The hard constraints of a pod with the counts they are held against.
#[derive(Clone, Default)]
pub(crate) struct Spread {
    constraints: Vec<Constraint>,
}

fn own_constraints(pod: &PodInfo, hard: bool) -> Vec<Constraint> {
    let declared: &[TopologySpreadConstraint] = pod.spec().topology_spread_constraints.as_deref().unwrap_or_default();
    if declared.is_empty() {
        return if hard { Vec::new() } else { default_constraints(pod) };
    }
    let wanted = declared.iter().filter(|c| (c.when_unsatisfiable == "DoNotSchedule") == hard);
    wanted.map(|c| parse(c, pod)).collect()
}

fn parse(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Constraint {
    let mut selector = LabelSelector::from_typed(constraint.label_selector.as_ref());
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.label(key) {
            let values = vec![value.to_owned()];
            selector.requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
        }
    }
    Constraint {
        key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
        selector,
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        counts: HashMap::new(),
    }
}

const HOSTNAME: &str = "kubernetes.io/hostname";

fn default_constraints(pod: &PodInfo) -> Vec<Constraint> {
    let Some(labels) = sibling_labels(pod) else { return Vec::new() };
    let make = |(key, max_skew): (&str, i64)| Constraint {
        key: key.to_owned(),
        max_skew,
        min_domains: 1,
        selector: LabelSelector::from_map(&labels),
        honor_affinity: true,
        honor_taints: false,
        counts: HashMap::new(),
    };
    [(HOSTNAME, 3), ("topology.kubernetes.io/zone", 5)].into_iter().map(make).collect()
}

/// Whether the node has the keys of all constraints.
fn has_keys(constraints: &[Constraint], node: &NodeInfo) -> bool {
    constraints.iter().all(|c| node.label(&c.key).is_some())
}

impl Spread {
    /// Counts the matching pods of every eligible node, when there is any constraint.
    pub(crate) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut constraints = own_constraints(pod, true);
        if constraints.is_empty() {
            return Self::default();
        }
        for node in snapshot.nodes().iter().filter(|n| n.node.is_some()) {
            if !has_keys(&constraints, node) {
                continue;
            }
            for constraint in constraints.iter_mut().filter(|c| c.counts_node(pod, node)) {
                let matching = constraint.matching(pod, node);
                add(constraint, node, matching);
            }
        }
        Self { constraints }
    }

    /// A running pod comes (`by` is 1) or goes (-1).
    pub(crate) fn count(&mut self, pod: &PodInfo, node: &NodeInfo, running: &PodInfo, by: i64) {
        if self.constraints.is_empty() || !has_keys(&self.constraints, node) {
            return;
        }
        for constraint in self.constraints.iter_mut().filter(|c| c.counts_node(pod, node)) {
            if constraint.counts_pod(pod, running) {
                add(constraint, node, by);
            }
        }
    }

    /// Why the node will not do, and whether it could help that pods of the node go.
    pub(crate) fn misfit(&self, pod: &PodInfo, node: &NodeInfo) -> Option<(&'static str, bool)> {
        for constraint in &self.constraints {
            let Some(value) = node.label(&constraint.key) else {
                return Some(("node(s) didn't match pod topology spread constraints (missing required label)", false));
            };
            let domains = constraint.counts.len() as i64;
            let fewest = constraint.counts.values().min().copied().unwrap_or(0);
            let fewest = if domains < constraint.min_domains { 0 } else { fewest };
            let here = constraint.counts.get(value).copied().unwrap_or(0) + i64::from(constraint.selects(pod));
            if here - fewest > constraint.max_skew {
                return Some(("node(s) didn't match pod topology spread constraints", true));
            }
        }
        None
    }
}

fn add(constraint: &mut Constraint, node: &NodeInfo, by: i64) {
    let Some(value) = node.label(&constraint.key) else { return };
    match constraint.counts.get_mut(value) {
        Some(count) => *count += by,
        None => drop(constraint.counts.insert(value.to_owned(), by)),
    }
}

/// How crowded each node's domains are by the soft constraints; less is better, nothing for a node that lacks a key.
/// No list at all when there is no such constraint.
pub(crate) fn crowding(pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Option<Vec<Option<i64>>> {
    let mut constraints = own_constraints(pod, false);
    if constraints.is_empty() {
        return None;
    }
    // By the defaults of the system a node without a zone still counts for its host.
    let all_keys = pod.spec().topology_spread_constraints.as_ref().is_some_and(|c| !c.is_empty());
    let considered = |constraints: &[Constraint], node: &NodeInfo| !all_keys || has_keys(constraints, node);
    let mut scored = 0;
    for node in nodes {
        if considered(&constraints, node) {
            scored += 1;
            constraints.iter_mut().filter(|c| c.key != HOSTNAME).for_each(|c| add(c, node, 0));
        }
    }
    if constraints.iter().any(|c| c.key != HOSTNAME) {
        for node in snapshot.nodes().iter().filter(|n| n.node.is_some()) {
            if considered(&constraints, node) {
                constraints.iter_mut().for_each(|c| count_domain(c, pod, node));
            }
        }
    }
    let weight = |c: &Constraint| (if c.key == HOSTNAME { scored } else { c.counts.len() } as f64 + 2.0).ln();
    let weights: Vec<f64> = constraints.iter().map(weight).collect();
    let crowd = |node: &&NodeInfo| {
        let each = constraints.iter().zip(&weights).filter_map(|(c, weight)| {
            let value = node.label(&c.key)?;
            let here = if c.key == HOSTNAME { c.matching(pod, node) } else { *c.counts.get(value)? };
            Some(here as f64 * weight + (c.max_skew - 1) as f64)
        });
        considered(&constraints, node).then(|| each.sum::<f64>().round() as i64)
    };
    Some(nodes.iter().map(crowd).collect())
}

/// Adds the node's matching pods to its domain, when a node to choose from lies there.
fn count_domain(constraint: &mut Constraint, pod: &PodInfo, node: &NodeInfo) {
    let known = node.label(&constraint.key).is_some_and(|value| constraint.counts.contains_key(value));
    if constraint.key != HOSTNAME && known && constraint.counts_node(pod, node) {
        let matching = constraint.matching(pod, node);
        add(constraint, node, matching);
    }
}
