//! Which pods of lower priority should make room for a pod, and on which node.
//!
//! Source: upstream's DefaultPreemption. Pure: pods, nodes and budgets in, a [`Preemption`] out. As few pods as will
//! do leave, those whose budget would be hurt last, and the more important stay.

use crate::cycle::Misfit;
use crate::filter::{Prepared, misfit_with_nominated};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{NodeInfo, Snapshot};
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use pintle_types::selector::LabelSelector;
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

/// Looks for the node where the least is lost when pods of lower priority make room.
pub fn preempt(
    pod: &PodInfo,
    profile: &Arc<Profile>,
    snapshot: &Snapshot,
    misfit: &Misfit,
    budgets: &[Arc<PodDisruptionBudget>],
    random: &mut impl Rng,
) -> Preemption {
    candidates(pod, profile, snapshot, misfit, budgets, random).map_or_else(|none| none, pick)
}

/// Nodes where it would help that pods leave; as many as are enough to choose from.
pub(crate) fn candidates(
    pod: &PodInfo,
    profile: &Arc<Profile>,
    snapshot: &Snapshot,
    misfit: &Misfit,
    budgets: &[Arc<PodDisruptionBudget>],
    random: &mut impl Rng,
) -> Result<Vec<Offer>, Preemption> {
    if let Some(why_not) = ineligible(pod, snapshot, misfit) {
        return Err(Preemption::NotEligible(why_not));
    }
    let places = &misfit.resolvable;
    let wanted = (places.len() * profile.min_candidates_percent / 100).max(profile.min_candidates);
    let offset = if places.is_empty() { 0 } else { random.random_range(0..places.len()) };
    let mut refused = Misfit { nodes: misfit.nodes, ..Misfit::default() };
    refused.note("Preemption is not helpful for scheduling", misfit.nodes.saturating_sub(places.len()));
    let budgets = parse_budgets(budgets);
    let prepared = Prepared::new(pod, profile, snapshot);
    let Ok(mut prepared) = prepared else { return Err(Preemption::NoNode(refused.to_string())) };
    let mut offers: Vec<Offer> = Vec::new();
    let mut emptied = NodeInfo::new("");
    for i in 0..places.len() {
        // Nodes may have gone since they were looked at.
        let Some(node) = snapshot.nodes().get(places[(offset + i) % places.len()]) else { continue };
        match victims_on(pod, node, &mut emptied, &mut prepared, snapshot, &budgets) {
            Ok(offer) => offers.push(offer),
            Err(reasons) => reasons.into_iter().for_each(|reason| refused.note(reason, 1)),
        }
        if offers.len() >= wanted && offers.iter().any(|offer| offer.violations == 0) {
            break;
        }
    }
    if offers.is_empty() { Err(Preemption::NoNode(refused.to_string())) } else { Ok(offers) }
}

/// The offer that costs least; the first of equals.
pub(crate) fn pick(offers: Vec<Offer>) -> Preemption {
    let better = |first: Offer, second: Offer| if cost(&second) < cost(&first) { second } else { first };
    match offers.into_iter().reduce(better) {
        Some(best) => Preemption::Room { node: best.node, victims: best.victims },
        None => Preemption::NoNode("no offer was left".to_owned()),
    }
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

/// What of the node's pods must leave for the pod to fit, or why that would not help. It is tried on `emptied`, whatever
/// that was before.
fn victims_on(
    pod: &PodInfo,
    node: &NodeInfo,
    emptied: &mut NodeInfo,
    prepared: &mut Prepared,
    snapshot: &Snapshot,
    budgets: &[Budget<'_>],
) -> Result<Offer, Vec<String>> {
    let mut lesser: Vec<Arc<PodInfo>> = node.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    emptied.copy_from(node);
    for victim in &lesser {
        emptied.remove(&victim.key);
        prepared.count(pod, node, victim, -1, snapshot.namespaces());
    }
    if let Some(refusal) = misfit_with_nominated(pod, emptied, prepared, snapshot) {
        lesser.iter().for_each(|spared| prepared.count(pod, node, spared, 1, snapshot.namespaces()));
        return Err(refusal.reasons(pod));
    }
    lesser.sort_by(|a, b| importance(a).cmp(&importance(b)));
    let (violating, rest) = split_by_budget(lesser, budgets);
    let (mut victims, mut violations) = (Vec::new(), 0);
    let protected = violating.len();
    for (i, other) in violating.into_iter().chain(rest).enumerate() {
        emptied.add(Arc::clone(&other));
        prepared.count(pod, node, &other, 1, snapshot.namespaces());
        if misfit_with_nominated(pod, emptied, prepared, snapshot).is_some() {
            emptied.remove(&other.key);
            prepared.count(pod, node, &other, -1, snapshot.namespaces());
            violations += usize::from(i < protected);
            victims.push(other);
        }
    }
    // The next node is tried with all of this one's pods in their places.
    victims.iter().for_each(|victim| prepared.count(pod, node, victim, 1, snapshot.namespaces()));
    victims.sort_by(|a, b| importance(a).cmp(&importance(b)));
    Ok(Offer { node: node.name.clone(), victims, violations })
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

struct Budget<'a> {
    budget: &'a PodDisruptionBudget,
    selector: LabelSelector,
    allowed: i32,
}

fn parse_budgets(budgets: &[Arc<PodDisruptionBudget>]) -> Vec<Budget<'_>> {
    let parse = |budget: &'_ Arc<PodDisruptionBudget>| {
        let selector = LabelSelector::from_typed(budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
        (selector, budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0))
    };
    let parsed = budgets.iter().map(|budget| {
        let (selector, allowed) = parse(budget);
        Budget { budget, selector, allowed }
    });
    parsed.filter(|b| !b.selector.is_everything()).collect()
}

/// Those whose leaving would hurt a budget, then the others; both in their order.
fn split_by_budget(pods: Vec<Arc<PodInfo>>, budgets: &[Budget<'_>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i32> = budgets.iter().map(|b| b.allowed).collect();
    let hurts = |pod: &Arc<PodInfo>| {
        let mut hurt = false;
        if pod.pod.metadata.labels.as_ref().is_none_or(|labels| labels.is_empty()) {
            return false;
        }
        for (budget, left) in budgets.iter().zip(&mut allowed) {
            let disrupted = budget.budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
            if budget.budget.namespace() != pod.key.namespace
                || !budget.selector.matches_with(|key| pod.label(key))
                || disrupted.is_some_and(|pods| pods.contains_key(&pod.key.name))
            {
                continue;
            }
            *left -= 1;
            hurt |= *left < 0;
        }
        hurt
    };
    pods.into_iter().partition(hurts)
}

/// Fewest budgets hurt, then the lowest highest priority, the lowest sum of priorities, the fewest pods, and the
/// latest start of the longest running of the most important.
fn cost(candidate: &Offer) -> impl Ord + '_ {
    let victims = &candidate.victims;
    let highest = victims.first().map_or(i32::MIN, |p| p.priority);
    let sum: i64 = victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = victims.iter().filter(|p| p.priority == highest).map(|p| started(p)).min();
    (candidate.violations, highest, sum, victims.len(), Reverse(earliest))
}
