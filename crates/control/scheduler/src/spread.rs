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

struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: i64,
    hard: bool,
    /// Whether the new pod counts towards its own domain.
    counts_itself: bool,
    /// Matching pods by the value of the key, over the eligible nodes.
    counts: HashMap<String, i64>,
}

/// The constraints of a pod with the counts they are held against.
#[derive(Default)]
pub(crate) struct Spread {
    constraints: Vec<Constraint>,
}

fn own_constraints(pod: &PodInfo) -> Vec<(Constraint, LabelSelector, bool, bool)> {
    let declared: &[TopologySpreadConstraint] = pod.spec().topology_spread_constraints.as_deref().unwrap_or_default();
    if declared.is_empty() {
        return default_constraints(pod);
    }
    let parse = |c: &TopologySpreadConstraint| {
        let mut selector = LabelSelector::from_typed(c.label_selector.as_ref());
        for key in c.match_label_keys.iter().flatten() {
            if let Some(value) = pod.label(key) {
                let values = vec![value.to_owned()];
                selector.requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
            }
        }
        let honor_affinity = c.node_affinity_policy.as_deref() != Some("Ignore");
        let honor_taints = c.node_taints_policy.as_deref() == Some("Honor");
        let constraint = Constraint {
            key: c.topology_key.clone(),
            max_skew: i64::from(c.max_skew),
            min_domains: i64::from(c.min_domains.unwrap_or(1)),
            hard: c.when_unsatisfiable == "DoNotSchedule",
            counts_itself: selector.matches_with(|key| pod.label(key)),
            counts: HashMap::new(),
        };
        (constraint, selector, honor_affinity, honor_taints)
    };
    declared.iter().map(parse).collect()
}

fn default_constraints(pod: &PodInfo) -> Vec<(Constraint, LabelSelector, bool, bool)> {
    let Some(labels) = sibling_labels(pod) else { return Vec::new() };
    let make = |(key, max_skew): (&str, i64)| {
        let constraint = Constraint {
            key: key.to_owned(),
            max_skew,
            min_domains: 1,
            hard: false,
            counts_itself: true,
            counts: HashMap::new(),
        };
        (constraint, LabelSelector::from_map(&labels), true, false)
    };
    [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)].into_iter().map(make).collect()
}

impl Spread {
    /// Counts the matching pods of every eligible node, when there is any constraint.
    pub(crate) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let count =
            |(mut constraint, selector, honor_affinity, honor_taints): (Constraint, LabelSelector, bool, bool)| {
                for node in snapshot.nodes().iter().filter(|n| n.node.is_some()) {
                    let Some(value) = node.label(&constraint.key) else { continue };
                    if (honor_affinity && !node_matches(pod, node)) || (honor_taints && !tolerated(pod, node)) {
                        continue;
                    }
                    let matching = node.pods.values().filter(|p| {
                        same_namespace(p, pod)
                            && p.pod.metadata.deletion_timestamp.is_none()
                            && selector.matches_with(|key| p.label(key))
                    });
                    *constraint.counts.entry(value.to_owned()).or_default() += matching.count() as i64;
                }
                constraint
            };
        Self { constraints: own_constraints(pod).into_iter().map(count).collect() }
    }

    /// Why the node will not do.
    pub(crate) fn misfit(&self, node: &NodeInfo) -> Option<&'static str> {
        for constraint in self.constraints.iter().filter(|c| c.hard) {
            let Some(value) = node.label(&constraint.key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let domains = constraint.counts.len() as i64;
            let fewest = constraint.counts.values().min().copied().unwrap_or(0);
            let fewest = if domains < constraint.min_domains { 0 } else { fewest };
            let here = constraint.counts.get(value).copied().unwrap_or(0) + i64::from(constraint.counts_itself);
            if here - fewest > constraint.max_skew {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        None
    }

    /// How crowded the node's domains are; less is better. Nothing when no constraint is soft.
    pub(crate) fn crowding(&self, node: &NodeInfo) -> Option<f64> {
        let soft = self.constraints.iter().filter(|c| !c.hard).filter_map(|constraint| {
            let here = node.label(&constraint.key).and_then(|v| constraint.counts.get(v)).copied()?;
            let weight = (constraint.counts.len() as f64 + 2.0).ln();
            Some(here as f64 * weight + (constraint.max_skew - 1) as f64)
        });
        soft.fold(None, |sum: Option<f64>, x| Some(sum.unwrap_or(0.0) + x))
    }
}
