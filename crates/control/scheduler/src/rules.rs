//! What a pod asks of nodes by their labels and names, parsed once for each pod.

use crate::snapshot::NodeInfo;
use pintle_types::k8s::api::core::v1::{NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm};
use pintle_types::selector::{Operator, Requirement};
use std::collections::BTreeSet;

const NAME_FIELD: &str = "metadata.name";

/// One way to be what is asked for; all its conditions must hold.
#[derive(Clone, Debug)]
struct Way {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    /// Nothing is described: a term without conditions, or one with an operator that does not exist.
    never: bool,
}

/// Required and preferred affinity to nodes.
#[derive(Clone, Debug)]
pub(crate) struct NodeRules {
    /// Any of these, when there are rules at all.
    required: Option<Vec<Way>>,
    preferred: Vec<(i64, Way)>,
    /// The only nodes that could do, when the rules name them.
    names: Option<BTreeSet<String>>,
}

impl Way {
    fn new(term: &NodeSelectorTerm) -> Self {
        let parse = |list: Option<&Vec<NodeSelectorRequirement>>| -> Option<Vec<Requirement>> {
            list.into_iter().flatten().map(Requirement::of_node).collect()
        };
        let (labels, fields) = (parse(term.match_expressions.as_ref()), parse(term.match_fields.as_ref()));
        let known = labels.is_some() && fields.is_some();
        let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
        let never = !known || (labels.is_empty() && fields.is_empty());
        Self { labels, fields, never }
    }

    fn describes(&self, node: &NodeInfo) -> bool {
        let field = |key: &str| (key == NAME_FIELD).then_some(node.name.as_str());
        !self.never
            && self.labels.iter().all(|r| r.matches(node.label(&r.key)))
            && self.fields.iter().all(|r| r.matches(field(&r.key)))
    }

    /// The names that it demands; nothing when it demands none.
    fn names(&self) -> Option<BTreeSet<String>> {
        let named = |r: &&Requirement| r.key == NAME_FIELD && r.operator == Operator::In;
        let sets = self.fields.iter().filter(named).map(|r| r.values.iter().cloned().collect::<BTreeSet<String>>());
        sets.reduce(|a, b| a.intersection(&b).cloned().collect())
    }
}

impl NodeRules {
    pub(crate) fn new(affinity: &NodeAffinity) -> Self {
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
        let required: Option<Vec<Way>> = required.map(|r| r.node_selector_terms.iter().map(Way::new).collect());
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let preferred = preferred.map(|p| (i64::from(p.weight), Way::new(&p.preference))).collect();
        let names = required.iter().flatten().map(Way::names).collect::<Option<Vec<_>>>();
        let names = names.filter(|sets| !sets.is_empty()).map(|sets| sets.into_iter().flatten().collect());
        Self { required, preferred, names }
    }

    /// Whether the node is what is required.
    pub(crate) fn admit(&self, node: &NodeInfo) -> bool {
        self.required.as_ref().is_none_or(|ways| ways.iter().any(|way| way.describes(node)))
    }

    /// The weight of what is preferred and met by the node.
    pub(crate) fn weight(&self, node: &NodeInfo) -> i64 {
        self.preferred.iter().filter(|(_, way)| way.describes(node)).map(|(weight, _)| weight).sum()
    }

    pub(crate) fn prefers(&self) -> bool {
        !self.preferred.is_empty()
    }

    /// The only nodes that could do, when the rules name them.
    pub(crate) fn names(&self) -> Option<&BTreeSet<String>> {
        self.names.as_ref()
    }
}
