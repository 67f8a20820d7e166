//! Topology spread: how evenly the pods that a constraint selects lie over zones and hosts.
//!
//! Source: KEP-895. Pods without constraints of their own that a Service, ReplicaSet, StatefulSet or
//! ReplicationController selects are spread by the profile's defaults: softly over hosts (skew 3) and zones (skew 5)
//! when it names none.

use crate::affinity::node_matches;
use crate::domains::Domains;
use crate::filter::tolerated;
use crate::pod::PodInfo;
use crate::profile::{DefaultConstraint, Profile};
use crate::selectors::Selectors;
use crate::snapshot::NodeInfo;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::TopologySpreadConstraint;
use pintle_types::selector::{LabelSelector, Operator, Requirement};
use std::collections::HashMap;

pub(crate) const HOSTNAME: &str = "kubernetes.io/hostname";
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";

/// Domains whose numbers are found by going through them, which for a few is faster than by hashes.
const FEW: usize = 16;

#[derive(Clone, Debug)]
struct Constraint {
    hard: bool,
    max_skew: i64,
    min_domains: i64,
    selector: LabelSelector,
    honor_affinity: bool,
    honor_taints: bool,
    /// Matching pods by the value of the key, over the eligible nodes.
    domains: Domains,
    /// Of a soft constraint over hosts: matching pods by node.
    hosts: HashMap<String, i64>,
}

/// What of a running pod makes constraints count it, against what they ask.
fn counts_pod(constraint: &Constraint, owner: &PodInfo, pod: &PodInfo) -> bool {
    // An empty selector counts nobody.
    !constraint.selector.is_everything()
        && pod.pod.namespace() == owner.pod.namespace()
        && pod.pod.metadata.deletion_timestamp.is_none()
        && constraint.selects(pod)
}

impl Constraint {
    fn selects(&self, pod: &PodInfo) -> bool {
        self.selector.matches_with(|key| pod.label(key))
    }

    fn key(&self) -> &str {
        &self.domains.key
    }

    /// A soft constraint over hosts counts on each node for itself.
    fn by_host(&self) -> bool {
        !self.hard && self.key() == HOSTNAME
    }

    fn counts_node(&self, owner: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honor_affinity || node_matches(owner, node)) && (!self.honor_taints || tolerated(owner, node))
    }

    /// In how many domains the nodes lie, and the number of each one's domain; nothing for a node without the key. This
    /// is asked of all nodes for every pod: a node's label is looked up once.
    fn numbers(&self, nodes: &[&NodeInfo], considered: &[bool]) -> (usize, Vec<Option<i64>>) {
        if self.by_host() {
            let number = |node: &NodeInfo| self.hosts.get(&node.name).copied().unwrap_or(0);
            let counts = |node: &NodeInfo, considered: bool| considered && node.has_label(HOSTNAME);
            let of_node = |(node, considered): (&&NodeInfo, &bool)| counts(node, *considered).then(|| number(node));
            return (0, nodes.iter().zip(considered).map(of_node).collect());
        }
        let mut known: HashMap<&str, i64> = HashMap::new();
        let mut few: Vec<(&str, i64)> = Vec::with_capacity(FEW);
        let mut numbers = Vec::with_capacity(nodes.len());
        for (node, considered) in nodes.iter().zip(considered) {
            let value = if *considered { node.label(self.key()) } else { None };
            numbers.push(value.map(|value| {
                // Nodes of a zone have the same text of it.
                if let Some((_, number)) = few.iter().find(|(other, _)| std::ptr::eq::<str>(*other, value)) {
                    return *number;
                }
                let number = *known.entry(value).or_insert_with(|| self.domains.number(value).unwrap_or(0));
                if few.len() < FEW {
                    few.push((value, number));
                }
                number
            }));
        }
        (known.len(), numbers)
    }

    fn add(&mut self, owner: &PodInfo, node: &NodeInfo, by: i64) {
        if self.by_host() {
            match self.hosts.get_mut(&node.name) {
                Some(pods) => *pods += by,
                None => drop(self.hosts.insert(node.name.clone(), by)),
            }
        } else if self.counts_node(owner, node) {
            self.domains.add(node, by);
        }
    }
}

/// The constraints of a pod with the counts they are held against.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    constraints: Vec<Constraint>,
    /// Whether the constraints are the system's defaults: by these a node without a zone still counts for its host.
    lenient: bool,
}

fn parse(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Constraint {
    let mut selector = LabelSelector::from_typed(constraint.label_selector.as_ref());
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.label(key) {
            let values = vec![value.to_owned()];
            selector.requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
        }
    }
    let hard = constraint.when_unsatisfiable == "DoNotSchedule";
    Constraint {
        hard,
        max_skew: i64::from(constraint.max_skew),
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
        selector,
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        domains: if hard { Domains::ordered(&constraint.topology_key) } else { Domains::new(&constraint.topology_key) },
        hosts: HashMap::new(),
    }
}

fn default_constraints(pod: &PodInfo, profile: &Profile, selectors: &Selectors) -> Vec<Constraint> {
    let defaults = profile.default_constraints();
    if defaults.is_empty() {
        return Vec::new();
    }
    let selector = selectors.of(pod);
    if selector.is_everything() {
        return Vec::new();
    }
    let make = |default: &DefaultConstraint| Constraint {
        hard: default.hard,
        max_skew: default.max_skew,
        min_domains: default.min_domains,
        selector: selector.clone(),
        honor_affinity: default.honor_affinity,
        honor_taints: default.honor_taints,
        domains: if default.hard { Domains::ordered(&default.key) } else { Domains::new(&default.key) },
        hosts: HashMap::new(),
    };
    defaults.iter().map(make).collect()
}

impl Spread {
    /// The constraints alone: nodes and pods are counted after.
    pub(crate) fn new(pod: &PodInfo, profile: &Profile, selectors: &Selectors) -> Self {
        let declared = pod.spec().topology_spread_constraints.as_deref().unwrap_or_default();
        if declared.is_empty() {
            let lenient = profile.spreads_by_system_defaults();
            return Self { constraints: default_constraints(pod, profile, selectors), lenient };
        }
        Self { constraints: declared.iter().map(|c| parse(c, pod)).collect(), lenient: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.constraints.is_empty()
    }

    fn of(&self, hard: bool) -> impl Iterator<Item = &Constraint> {
        self.constraints.iter().filter(move |c| c.hard == hard)
    }

    /// Whether the node has the keys of all constraints of the kind.
    fn has_keys(&self, hard: bool, node: &NodeInfo) -> bool {
        self.of(hard).all(|c| node.has_label(c.key()))
    }

    /// Whether a node's pods count for constraints of the kind.
    fn considers(&self, hard: bool, node: &NodeInfo) -> bool {
        (!hard && self.lenient) || self.has_keys(hard, node)
    }

    /// Whether nodes matter without any pod: the domains of hard constraints are there even while nobody is in them.
    pub(crate) fn counts_nodes(&self) -> bool {
        self.of(true).next().is_some()
    }

    /// The node's domains are there, even while no pod is in them.
    pub(crate) fn count_node(&mut self, pod: &PodInfo, node: &NodeInfo) {
        if self.considers(true, node) {
            self.constraints.iter_mut().filter(|c| c.hard).for_each(|constraint| constraint.add(pod, node, 0));
        }
    }

    /// A running pod comes (`by` is 1) or goes (-1).
    pub(crate) fn count(&mut self, pod: &PodInfo, node: &NodeInfo, running: &PodInfo, by: i64) {
        if !self.constraints.iter().any(|c| counts_pod(c, pod, running)) {
            return;
        }
        let considered = [false, true].map(|hard| self.considers(hard, node));
        for constraint in self.constraints.iter_mut().filter(|c| considered[usize::from(c.hard)]) {
            if counts_pod(constraint, pod, running) {
                constraint.add(pod, node, by);
            }
        }
    }

    /// Why the node will not do, and whether it could help that pods of the node go.
    pub(crate) fn misfit(&self, pod: &PodInfo, node: &NodeInfo) -> Option<(&'static str, bool)> {
        for constraint in self.of(true) {
            if node.label(constraint.key()).is_none() {
                return Some(("node(s) didn't match pod topology spread constraints (missing required label)", false));
            }
            let domains = &constraint.domains;
            let fewest = if (domains.len() as i64) < constraint.min_domains { 0 } else { domains.fewest() };
            let here = domains.at(node) + i64::from(constraint.selects(pod));
            if here - fewest > constraint.max_skew {
                return Some(("node(s) didn't match pod topology spread constraints", true));
            }
        }
        None
    }

    /// How crowded each node's domains are by the soft constraints; less is better, nothing for a node that lacks a
    /// key. No list at all when there is no such constraint.
    pub(crate) fn crowding(&self, nodes: &[&NodeInfo]) -> Option<Vec<Option<i64>>> {
        let soft: Vec<&Constraint> = self.of(false).collect();
        if soft.is_empty() {
            return None;
        }
        let considered: Vec<bool> = nodes.iter().map(|node| self.considers(false, node)).collect();
        let scored = considered.iter().filter(|considered| **considered).count();
        let mut crowds = vec![0.0; nodes.len()];
        for constraint in soft {
            let (domains, numbers) = constraint.numbers(nodes, &considered);
            // What matters is in how many domains the nodes lie that could be chosen.
            let size = if constraint.by_host() { scored } else { domains };
            let (weight, allowed) = ((size as f64 + 2.0).ln(), (constraint.max_skew - 1) as f64);
            for (crowd, number) in crowds.iter_mut().zip(numbers) {
                *crowd += number.map_or(0.0, |number| number as f64 * weight + allowed);
            }
        }
        let shown = considered.into_iter().zip(crowds);
        Some(shown.map(|(considered, crowd)| considered.then(|| crowd.round() as i64)).collect())
    }
}
