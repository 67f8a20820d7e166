//! One pass for one pod: filter, score, choose.

use crate::affinity::PodAffinity;
use crate::filter::{Prepared, Reason, misfit};
use crate::pod::PodInfo;
use crate::score::scores;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::spread::Spread;
use rand::Rng;
use std::collections::BTreeMap;
use std::fmt;

/// Nodes that are enough to choose from on a large cluster; fewer nodes are all looked at.
const ENOUGH: usize = 100;

/// Why no node will do. Displays as upstream's message of the event `FailedScheduling`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    pub nodes: usize,
    /// How many nodes each reason holds for.
    pub reasons: BTreeMap<String, usize>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available", self.nodes)?;
        let mut texts: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort();
        if texts.is_empty() { f.write_str(".") } else { write!(f, ": {}.", texts.join(", ")) }
    }
}

/// How many nodes that will do are looked for: all of up to 100, then a falling share, as upstream's
/// `percentageOfNodesToScore` works out by itself.
fn enough(nodes: usize) -> usize {
    if nodes <= ENOUGH {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ENOUGH)
}

/// The best node for a pod. Nodes are looked at from `start` on, so that on a large cluster each gets its turn; among
/// equals `random` decides.
pub fn schedule<'a>(
    pod: &PodInfo,
    snapshot: &'a Snapshot,
    start: usize,
    random: &mut impl Rng,
) -> Result<&'a str, Misfit> {
    let prepared = Prepared { affinity: PodAffinity::new(pod, snapshot), spread: Spread::new(pod, snapshot) };
    let (mut feasible, mut failed) = (Vec::new(), Misfit::default());
    let nodes = snapshot.nodes();
    let wanted = enough(snapshot.known_nodes());
    for i in 0..nodes.len() {
        let node = &nodes[(start + i) % nodes.len()];
        if node.node.is_none() {
            continue;
        }
        failed.nodes += 1;
        let reasons = misfit(pod, node, &prepared);
        if reasons.is_empty() {
            feasible.push(node);
            if feasible.len() >= wanted {
                break;
            }
        }
        note(&mut failed, reasons);
    }
    match feasible.as_slice() {
        [] => Err(failed),
        [only] => Ok(&only.name),
        many => Ok(&best(pod, many, &prepared, random).name),
    }
}

fn note(failed: &mut Misfit, reasons: Vec<Reason>) {
    for reason in reasons {
        *failed.reasons.entry(reason.into_owned()).or_default() += 1;
    }
}

fn best<'a>(pod: &PodInfo, nodes: &[&'a NodeInfo], prepared: &Prepared, random: &mut impl Rng) -> &'a NodeInfo {
    let scores = scores(pod, nodes, prepared);
    let (mut chosen, mut equals) = (0, 1u32);
    for i in 1..nodes.len() {
        if scores[i] > scores[chosen] {
            (chosen, equals) = (i, 1);
        } else if scores[i] == scores[chosen] {
            equals += 1;
            if random.random_range(0..equals) == 0 {
                chosen = i;
            }
        }
    }
    nodes[chosen]
}
