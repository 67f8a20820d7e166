//! The order in which nodes are looked at: one of each zone in turn, so that those looked at lie in all zones.
//!
//! Source: upstream's node tree.

use crate::snapshot::NodeInfo;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Node;
use std::collections::HashMap;

/// Region and zone of a node, by its labels or their older names; empty for one that does not say.
pub(crate) fn zone(node: &Node) -> (&str, &str) {
    let label = |names: [&str; 2]| names.into_iter().find_map(|name| node.label(name)).unwrap_or_default();
    let region = label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
    (region, label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]))
}

/// The places of the nodes: the first of each zone, then the second of each, and so on. Zones come in the order of their
/// first nodes.
pub(crate) fn interleaved(nodes: &[NodeInfo]) -> Vec<usize> {
    let mut by_zone: HashMap<(&str, &str), usize> = HashMap::new();
    let mut zones: Vec<Vec<usize>> = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        let zone = node.node.as_deref().map(zone).unwrap_or_default();
        let known = *by_zone.entry(zone).or_insert_with(|| {
            zones.push(Vec::new());
            zones.len() - 1
        });
        zones[known].push(place);
    }
    let longest = zones.iter().map(Vec::len).max().unwrap_or(0);
    let round = |turn: usize| zones.iter().filter_map(move |zone| zone.get(turn)).copied().collect::<Vec<_>>();
    (0..longest).flat_map(round).collect()
}
