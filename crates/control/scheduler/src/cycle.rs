//! One pass for one pod: filter, score, choose.

use crate::filter::{Plugins, Prepared, Refusal, misfit_with_nominated};
use crate::pod::PodInfo;
use crate::score::scores;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::volumes::Rejection;
use rand::Rng;
use std::collections::BTreeMap;
use std::fmt;

/// Nodes that are enough to choose from on a large cluster; fewer nodes are all looked at.
const ENOUGH: usize = 100;

/// Why no node will do. Displays as upstream's message of the event `FailedScheduling`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    pub nodes: usize,
    /// What is against every node, when that is known before any is looked at.
    pub before: Option<String>,
    /// How many nodes each reason holds for.
    pub reasons: BTreeMap<String, usize>,
    /// Who refused: only what could change their mind brings the pod back.
    pub plugins: Plugins,
    /// Nodes, by their place in the snapshot, where it could help that pods leave.
    pub(crate) resolvable: Vec<usize>,
    /// What preemption came to; empty when it found a node.
    pub preemption: String,
}

impl Misfit {
    pub(crate) fn note(&mut self, reason: impl Into<String>, nodes: usize) {
        if nodes > 0 {
            *self.reasons.entry(reason.into()).or_default() += nodes;
        }
    }
}

impl Misfit {
    /// What was tried after no node would do. Upstream's DynamicResources is asked first: it can give claims up.
    fn tell_preemption(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.preemption.as_str() {
            "" => Ok(()),
            what => write!(f, " no new claims to deallocate, preemption: {what}"),
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        if let Some(before) = &self.before {
            write!(f, "0/{} nodes are available: {before}.", self.nodes)?;
            return self.tell_preemption(f);
        }
        let mut texts: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, texts.join(", "))?;
        self.tell_preemption(f)
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
/// equals `random` decides. The node that the pod was nominated for is taken when it will do.
pub fn schedule<'a>(
    pod: &PodInfo,
    snapshot: &'a Snapshot,
    start: usize,
    random: &mut impl Rng,
) -> Result<&'a str, Misfit> {
    let prepared = Prepared::new(pod, snapshot).map_err(|rejection| rejected(rejection, snapshot))?;
    let promised = snapshot.nomination(&pod.key).or(pod.nominated()).and_then(|name| snapshot.node(name));
    let will_do = |n: &&NodeInfo| n.node.is_some() && misfit_with_nominated(pod, n, &prepared, snapshot).is_none();
    if let Some(node) = promised.filter(will_do) {
        return Ok(&node.name);
    }
    let (mut feasible, mut refusals, mut failed) = (Vec::new(), Vec::new(), Misfit::default());
    let nodes = snapshot.nodes();
    let wanted = enough(snapshot.known_nodes());
    for i in 0..nodes.len() {
        let place = (start + i) % nodes.len();
        let node = &nodes[place];
        if node.node.is_none() {
            continue;
        }
        failed.nodes += 1;
        match misfit_with_nominated(pod, node, &prepared, snapshot) {
            None => feasible.push(node),
            Some(refusal) => {
                if refusal.resolvable {
                    failed.resolvable.push(place);
                }
                note(&mut refusals, refusal);
            }
        }
        if feasible.len() >= wanted {
            break;
        }
    }
    match feasible.as_slice() {
        [] => Err(explain(failed, &refusals, pod)),
        [only] => Ok(&only.name),
        many => Ok(&best(pod, many, snapshot, random).name),
    }
}

fn rejected(rejection: Rejection, snapshot: &Snapshot) -> Misfit {
    let mut failed = Misfit { nodes: snapshot.known_nodes(), before: Some(rejection.message), ..Misfit::default() };
    if failed.nodes > 0 {
        failed.plugins.insert(rejection.plugin);
    }
    failed
}

/// Counts a refusal among the few different ones.
fn note(refusals: &mut Vec<(Refusal, usize)>, refusal: Refusal) {
    match refusals.iter_mut().find(|(known, _)| *known == refusal) {
        Some((_, count)) => *count += 1,
        None => refusals.push((refusal, 1)),
    }
}

fn explain(mut failed: Misfit, refusals: &[(Refusal, usize)], pod: &PodInfo) -> Misfit {
    for (refusal, count) in refusals {
        failed.plugins.insert(refusal.plugin);
        refusal.reasons(pod).into_iter().for_each(|reason| failed.note(reason, *count));
    }
    failed
}

fn best<'a>(pod: &PodInfo, nodes: &[&'a NodeInfo], snapshot: &Snapshot, random: &mut impl Rng) -> &'a NodeInfo {
    let scores = scores(pod, nodes, snapshot);
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
