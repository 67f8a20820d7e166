//! One pass for one pod: filter, score, choose.

use crate::filter::{Plugin, Plugins, Prepared, Refusal, misfit_with_nominated};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::score::scores;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::verdicts::Verdict;
use crate::volumes::Rejection;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Nodes that are enough to choose from on a large cluster; fewer nodes are all looked at.
const ENOUGH: usize = 100;

/// Why no node will do. Displays as upstream's message of the event `FailedScheduling`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    pub nodes: usize,
    /// What is against every node, when that is known before any is looked at.
    pub before: Option<Box<str>>,
    /// How many nodes each reason holds for.
    pub reasons: BTreeMap<String, usize>,
    /// Who refused: only what could change their mind brings the pod back.
    pub plugins: Plugins,
    /// Nodes, by their place in the snapshot, where it could help that pods leave.
    pub(crate) resolvable: Vec<usize>,
    /// What giving up claims to devices came to; nothing for pods that have none.
    pub(crate) claims: &'static str,
    /// What preemption came to; empty when it found a node.
    pub preemption: Box<str>,
}

impl Misfit {
    /// What of a pod's own makes all nodes unfit.
    pub(crate) fn of_all(nodes: usize, rejection: Rejection) -> Self {
        let mut failed = Self { nodes, before: Some(rejection.message.into()), ..Self::default() };
        if nodes > 0 {
            failed.plugins.insert(rejection.plugin);
        }
        failed
    }

    pub(crate) fn note(&mut self, reason: impl Into<String>, nodes: usize) {
        if nodes > 0 {
            *self.reasons.entry(reason.into()).or_default() += nodes;
        }
    }
}

impl Misfit {
    /// What was tried after no node would do. Upstream's DynamicResources is asked first: it can give claims up.
    fn tell_preemption(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.preemption {
            "" => Ok(()),
            what if self.claims.is_empty() => write!(f, " no new claims to deallocate, preemption: {what}"),
            what => write!(f, " {}, preemption: {what}", self.claims),
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

/// How many nodes that will do are looked for: all of up to 100, then the profile's share, or a falling one, as
/// upstream's `percentageOfNodesToScore` works out by itself.
fn enough(nodes: usize, percentage: usize) -> usize {
    if nodes <= ENOUGH {
        return nodes;
    }
    let percent = if percentage > 0 { percentage } else { 50usize.saturating_sub(nodes / 125).max(5) };
    if percent >= 100 { nodes } else { (nodes * percent / 100).max(ENOUGH) }
}

/// A node for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    pub node: &'a str,
    /// Nodes that were looked at: the next pod's turn starts after them.
    pub looked_at: usize,
    /// Nodes that would do.
    pub feasible: usize,
}

/// The best node for a pod. Nodes are looked at from `start` on, so that on a large cluster each gets its turn; among
/// equals `random` decides. The node that the pod was nominated for is taken when it will do.
pub fn schedule<'a>(
    pod: &PodInfo,
    profile: &Arc<Profile>,
    snapshot: &'a Snapshot,
    start: usize,
    random: &mut impl Rng,
) -> Result<Choice<'a>, Misfit> {
    let prepared = Prepared::new(pod, profile, snapshot);
    let prepared = prepared.map_err(|rejection| Misfit::of_all(snapshot.known_nodes(), rejection))?;
    let found = find(pod, &prepared, snapshot, start);
    let (looked_at, feasible) = (found.looked_at, found.nodes.len());
    match found.nodes.as_slice() {
        [] => Err(found.explain(pod)),
        [only] => Ok(Choice { node: &only.name, looked_at, feasible }),
        many => {
            let scores = scores(pod, many, &prepared, snapshot);
            Ok(Choice { node: &many[best(&scores, random)].name, looked_at, feasible })
        }
    }
}

/// What looking at nodes found.
pub(crate) struct Found<'a> {
    /// Nodes that will do.
    pub(crate) nodes: Vec<&'a NodeInfo>,
    pub(crate) looked_at: usize,
    failed: Misfit,
    /// The few different refusals, with how many nodes each holds for.
    refusals: Vec<(Refusal, usize)>,
    /// Nodes that were not looked at because the pod names others.
    unnamed: usize,
}

impl<'a> Found<'a> {
    fn note(&mut self, verdict: Verdict, snapshot: &'a Snapshot, place: usize) {
        self.failed.nodes += usize::from(verdict != Verdict::Absent);
        match verdict {
            Verdict::Absent => {}
            Verdict::WillDo => self.nodes.push(&snapshot.nodes()[place]),
            Verdict::Refused(refusal) => {
                if refusal.resolvable {
                    self.failed.resolvable.push(place);
                }
                match self.refusals.iter_mut().find(|(known, _)| *known == refusal) {
                    Some((_, count)) => *count += 1,
                    None => self.refusals.push((refusal, 1)),
                }
            }
        }
    }

    /// Why none will do.
    pub(crate) fn explain(mut self, pod: &PodInfo) -> Misfit {
        for (refusal, count) in &self.refusals {
            self.failed.plugins.insert(refusal.plugin);
            refusal.reasons(pod).into_iter().for_each(|reason| self.failed.note(reason, *count));
        }
        if self.unnamed > 0 {
            self.failed.nodes += self.unnamed;
            self.failed.plugins.insert(Plugin::NodeAffinity);
            self.failed.note("node(s) didn't satisfy plugin(s) [NodeAffinity]", self.unnamed);
        }
        self.failed
    }
}

/// What the node of that place is to the pod.
fn judge(pod: &PodInfo, prepared: &Prepared, snapshot: &Snapshot, place: usize) -> Verdict {
    let node = &snapshot.nodes()[place];
    if node.node.is_none() {
        return Verdict::Absent;
    }
    misfit_with_nominated(pod, node, prepared, snapshot).map_or(Verdict::WillDo, Verdict::Refused)
}

/// Looks for nodes that will do: the promised one alone when it will, else as many as are enough.
pub(crate) fn find<'a>(pod: &PodInfo, prepared: &Prepared, snapshot: &'a Snapshot, start: usize) -> Found<'a> {
    let (failed, refusals) = (Misfit::default(), Vec::new());
    let mut found = Found { nodes: Vec::new(), looked_at: 0, failed, refusals, unnamed: 0 };
    let promised = snapshot.nomination(&pod.key).or(pod.nominated()).and_then(|name| snapshot.node(name));
    let will_do = |n: &&NodeInfo| n.node.is_some() && misfit_with_nominated(pod, n, prepared, snapshot).is_none();
    if let Some(node) = promised.filter(will_do) {
        found.nodes.push(node);
        return found;
    }
    if let Some(names) = named_nodes(pod, prepared) {
        for place in names.iter().filter_map(|name| snapshot.place(name)) {
            found.note(judge(pod, prepared, snapshot, place), snapshot, place);
        }
        found.unnamed = snapshot.known_nodes() - found.failed.nodes;
        return found;
    }
    let (all, wanted) = (snapshot.nodes().len(), enough(snapshot.known_nodes(), prepared.profile.percentage));
    let start = if all == 0 { 0 } else { start % all };
    let (before, after) = snapshot.order().split_at(start);
    let mut verdicts = snapshot.verdicts();
    let mut known = verdicts.of(pod, prepared, snapshot);
    for place in after.iter().chain(before) {
        found.looked_at += 1;
        let look = || judge(pod, prepared, snapshot, *place);
        let verdict = known.as_mut().map_or_else(look, |known| known.verdict(*place, look));
        found.note(verdict, snapshot, *place);
        if found.nodes.len() >= wanted {
            break;
        }
    }
    if found.nodes.is_empty() && known.is_none() {
        verdicts.keep(pod, prepared, snapshot);
    }
    found
}

/// The only nodes that the pod's rules allow, when they name them.
fn named_nodes<'a>(pod: &'a PodInfo, prepared: &Prepared) -> Option<&'a BTreeSet<String>> {
    let asked = prepared.profile.filters_by(Plugin::NodeAffinity);
    pod.rules.as_ref().filter(|_| asked)?.names()
}

/// The place of the highest score; among equals `random` decides.
pub(crate) fn best(scores: &[i64], random: &mut impl Rng) -> usize {
    let (mut chosen, mut equals) = (0, 1u32);
    for i in 1..scores.len() {
        if scores[i] > scores[chosen] {
            (chosen, equals) = (i, 1);
        } else if scores[i] == scores[chosen] {
            equals += 1;
            if random.random_range(0..equals) == 0 {
                chosen = i;
            }
        }
    }
    chosen
}
