//! Which pods of lower priority should make room for a pod, and on which node.
//!
//! Source: upstream's DefaultPreemption. Pure: pods, nodes and budgets in, a [`Preemption`] out. As few pods as will
//! do leave, those whose budget would be hurt last, and the more important stay.

use crate::budgets::Parted;
use crate::cycle::Misfit;
use crate::filter::{Prepared, Refusal, misfit_with_nominated};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::verdicts::Bid;
use pintle_types::{Kind, Time};
use rand::Rng;
use std::cmp::Reverse;
use std::sync::Arc;

pub const CONDITION: &str = "DisruptionTarget";
pub const REASON: &str = "PreemptionByScheduler";

/// What comes of looking for victims.
#[derive(Debug)]
pub enum Preemption {
    /// The pod may not preempt, or waits for earlier victims; a nomination stays. Upstream's words.
    NotEligible(&'static str),
    /// No node would do even so; a nomination is void. Upstream's words.
    NoNode(String),
    /// These pods, the most important first, should leave that node.
    Room { node: String, victims: Vec<Arc<PodInfo>> },
}

/// A node where a pod would fit if these left.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) node: String,
    /// The most important first.
    pub(crate) victims: Vec<Arc<PodInfo>>,
    /// How many of them budgets would keep.
    pub(crate) violations: usize,
}

/// What is lost where pods leave. Less is better: fewest budgets hurt, then the lowest highest priority, the lowest sum
/// of priorities, the fewest pods, and the latest start of the longest running of the most important.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Loss {
    violations: usize,
    highest: i32,
    sum: i64,
    pods: usize,
    earliest: Reverse<Option<(bool, Option<Time>)>>,
}

impl Loss {
    fn of(victims: &[Arc<PodInfo>], violations: usize) -> Self {
        let highest = victims.first().map_or(i32::MIN, |p| p.priority);
        let sum = victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
        let earliest = victims.iter().filter(|p| p.priority == highest).map(|p| started(p)).min();
        let earliest = Reverse(earliest.map(|(unstarted, start)| (unstarted, start.cloned())));
        Self { violations, highest, sum, pods: victims.len(), earliest }
    }
}

/// Why it does not help that pods leave a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unhelpful {
    /// None is less important.
    NoVictims,
    /// It will not do even so.
    Unfit(Refusal),
}

impl Unhelpful {
    /// Upstream's words, each reason for itself.
    fn reasons(&self, pod: &PodInfo) -> Vec<String> {
        match self {
            Self::NoVictims => vec!["No preemption victims found for incoming pod".to_owned()],
            Self::Unfit(refusal) => refusal.reasons(pod),
        }
    }
}

/// Looks for the node where the least is lost when pods of lower priority make room.
pub fn preempt(
    pod: &PodInfo,
    profile: &Arc<Profile>,
    snapshot: &Snapshot,
    misfit: &Misfit,
    random: &mut impl Rng,
) -> Preemption {
    let search = Search::new(pod, profile, snapshot, misfit, random);
    search.and_then(Search::least).unwrap_or_else(|none| none)
}

/// Nodes where it would help that pods leave; as many as are enough to choose from.
pub(crate) fn candidates(
    pod: &PodInfo,
    profile: &Arc<Profile>,
    snapshot: &Snapshot,
    misfit: &Misfit,
    random: &mut impl Rng,
) -> Result<Vec<Offer>, Preemption> {
    Search::new(pod, profile, snapshot, misfit, random)?.offers()
}

/// The offer that costs least; the first of equals.
pub(crate) fn pick(offers: Vec<Offer>) -> Preemption {
    match offers.into_iter().min_by_key(|offer| Loss::of(&offer.victims, offer.violations)) {
        Some(best) => Preemption::Room { node: best.node, victims: best.victims },
        None => Preemption::NoNode("no offer was left".to_owned()),
    }
}

/// A search for nodes that pods should leave.
struct Search<'a> {
    trial: Trial<'a>,
    misfit: &'a Misfit,
    /// The node that is looked at first, by its place among those that could do.
    offset: usize,
    /// Nodes that are enough to choose from.
    wanted: usize,
}

impl<'a> Search<'a> {
    fn new(
        pod: &'a PodInfo,
        profile: &Arc<Profile>,
        snapshot: &'a Snapshot,
        misfit: &'a Misfit,
        random: &mut impl Rng,
    ) -> Result<Self, Preemption> {
        if let Some(why_not) = ineligible(pod, snapshot, misfit) {
            return Err(Preemption::NotEligible(why_not));
        }
        let places = misfit.resolvable.len();
        let wanted = (places * profile.min_candidates_percent / 100).max(profile.min_candidates);
        let offset = if places == 0 { 0 } else { random.random_range(0..places) };
        let none = |_| Preemption::NoNode(none_of(misfit).to_string());
        let prepared = Prepared::new(pod, profile, snapshot).map_err(none)?;
        let trial = Trial { pod, snapshot, prepared, emptied: NodeInfo::new("") };
        Ok(Self { trial, misfit, offset, wanted })
    }

    /// Asks node after node, by their places, until enough have made an offer and one of them hurts no budget.
    fn ask<T>(
        &mut self,
        mut ask: impl FnMut(&mut Trial<'a>, usize) -> Result<T, Unhelpful>,
        violations: impl Fn(&T) -> usize,
    ) -> Result<Vec<T>, Preemption> {
        let places = &self.misfit.resolvable;
        let (mut made, mut harmless): (Vec<T>, bool) = (Vec::new(), false);
        let mut refused: Vec<(Unhelpful, usize)> = Vec::new();
        for i in 0..places.len() {
            let place = places[(self.offset + i) % places.len()];
            // Nodes may have gone since they were looked at.
            if place >= self.trial.snapshot.nodes().len() {
                continue;
            }
            match ask(&mut self.trial, place) {
                Ok(offer) => {
                    harmless |= violations(&offer) == 0;
                    made.push(offer);
                }
                Err(why) => match refused.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, count)) => *count += 1,
                    None => refused.push((why, 1)),
                },
            }
            if made.len() >= self.wanted && harmless {
                break;
            }
        }
        if !made.is_empty() {
            return Ok(made);
        }
        let mut none = none_of(self.misfit);
        for (why, count) in refused {
            why.reasons(self.trial.pod).into_iter().for_each(|reason| none.note(reason, count));
        }
        Err(Preemption::NoNode(none.to_string()))
    }

    fn offers(mut self) -> Result<Vec<Offer>, Preemption> {
        self.ask(|trial, place| trial.offer(place).map(|(offer, _)| offer), |offer| offer.violations)
    }

    /// The offer that costs least; the first of equals. What each node would cost is known of most from before.
    fn least(mut self) -> Result<Preemption, Preemption> {
        let snapshot = self.trial.snapshot;
        let mut verdicts = snapshot.verdicts();
        let mut known = verdicts.of(self.trial.pod, &self.trial.prepared, snapshot);
        let bid = |trial: &mut Trial<'a>, place: usize| {
            let bid = match &mut known {
                Some(known) => known.bid(place, snapshot.budgets(), || trial.bid(place)),
                None => trial.bid(place).0,
            };
            bid.map(|loss| (loss, place))
        };
        let bids = self.ask(bid, |(loss, _)| loss.violations)?;
        let best = bids.iter().min_by(|(a, _), (b, _)| a.cmp(b));
        let offer = best.and_then(|(_, place)| self.trial.offer(*place).ok());
        Ok(pick(offer.map(|(offer, _)| offer).into_iter().collect()))
    }
}

/// What is told when no node would do, before any was tried.
fn none_of(misfit: &Misfit) -> Misfit {
    let mut refused = Misfit { nodes: misfit.nodes, ..Misfit::default() };
    let hopeless = misfit.nodes.saturating_sub(misfit.resolvable.len());
    refused.note("Preemption is not helpful for scheduling", hopeless);
    refused
}

fn ineligible(pod: &PodInfo, snapshot: &Snapshot, misfit: &Misfit) -> Option<&'static str> {
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let name = snapshot.nomination(&pod.key).or(pod.nominated())?;
    let place = snapshot.place(name)?;
    // A node that can never do is given up, whoever leaves it.
    if !misfit.resolvable.contains(&place) {
        return None;
    }
    let leaving = |p: &Arc<PodInfo>| p.priority < pod.priority && leaves_for_another(p);
    let waits = snapshot.awaits_leaving(&pod.key) || snapshot.nodes()[place].pods.values().any(leaving);
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Whether the pod is being deleted to make room.
fn leaves_for_another(pod: &PodInfo) -> bool {
    let conditions = pod.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let target = conditions.filter(|c| c.type_ == CONDITION);
    pod.pod.is_deleting() && target.into_iter().any(|c| c.status == "True" && c.reason.as_deref() == Some(REASON))
}

/// Tries out on one node after the other who would have to leave.
struct Trial<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    prepared: Prepared,
    /// A node without those who would leave; its memory is used again.
    emptied: NodeInfo,
}

impl<'a> Trial<'a> {
    /// What is lost on the node of that place, and whether any of those who might leave it is in a budget.
    fn bid(&mut self, place: usize) -> (Bid, bool) {
        match self.offer(place) {
            Ok((offer, guarded)) => (Ok(Loss::of(&offer.victims, offer.violations)), guarded),
            Err(why) => (Err(why), false),
        }
    }

    /// What of the node's pods must leave for the pod to fit, or why that would not help; and whether any of those who
    /// might is in a budget.
    fn offer(&mut self, place: usize) -> Result<(Offer, bool), Unhelpful> {
        let (node, priority) = (&self.snapshot.nodes()[place], self.pod.priority);
        if node.lowest_priority().is_none_or(|lowest| lowest >= priority) {
            return Err(Unhelpful::NoVictims);
        }
        let mut lesser: Vec<Arc<PodInfo>> = node.pods.values().filter(|p| p.priority < priority).cloned().collect();
        self.emptied.copy_from(node);
        lesser.iter().for_each(|victim| self.take_out(node, victim));
        if let Some(refusal) = self.misfit() {
            lesser.iter().for_each(|spared| self.count(node, spared, 1));
            return Err(Unhelpful::Unfit(refusal));
        }
        lesser.sort_by(|a, b| importance(a).cmp(&importance(b)));
        let Parted { kept, free, guarded } = self.snapshot.budgets().part(lesser);
        let (mut victims, mut violations) = (Vec::new(), 0);
        let protected = kept.len();
        for (i, other) in kept.into_iter().chain(free).enumerate() {
            self.emptied.add(Arc::clone(&other));
            self.count(node, &other, 1);
            if self.misfit().is_some() {
                self.take_out(node, &other);
                violations += usize::from(i < protected);
                victims.push(other);
            }
        }
        // The next node is tried with all of this one's pods in their places.
        victims.iter().for_each(|victim| self.count(node, victim, 1));
        victims.sort_by(|a, b| importance(a).cmp(&importance(b)));
        Ok((Offer { node: node.name.clone(), victims, violations }, guarded))
    }

    fn misfit(&self) -> Option<Refusal> {
        misfit_with_nominated(self.pod, &self.emptied, &self.prepared, self.snapshot)
    }

    fn take_out(&mut self, node: &NodeInfo, victim: &PodInfo) {
        self.emptied.remove(&victim.key);
        self.count(node, victim, -1);
    }

    fn count(&mut self, node: &NodeInfo, other: &PodInfo, by: i64) {
        self.prepared.count_running(self.pod, node, other, by, self.snapshot.namespaces());
    }
}

/// When the pod was started; what has not been started yet counts as now.
fn started(pod: &PodInfo) -> (bool, Option<&Time>) {
    let start = pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    (start.is_none(), start)
}

/// The order of pods, the most important first: by priority, then the longest running; their names make it total.
fn importance(pod: &PodInfo) -> impl Ord + '_ {
    (Reverse(pod.priority), started(pod), &pod.key.namespace, &pod.key.name)
}
