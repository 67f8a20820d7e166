//! Which pods of lower priority should make room for a pod, and on which node.
//!
//! Source: upstream's DefaultPreemption. Pure: pods, nodes and budgets in, a [`Preemption`] out. As few pods as will
//! do leave, those whose budget would be hurt last, and the more important stay.

use crate::cycle::Misfit;
use crate::filter::{Prepared, misfit_with_nominated};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use pintle_types::Kind;
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use pintle_types::selector::LabelSelector;
use rand::Rng;
use std::cmp::Reverse;
use std::sync::Arc;

/// Nodes that are tried at least, and the share of nodes that are tried on a large cluster.
const MIN_CANDIDATES: usize = 100;
const MIN_CANDIDATES_PERCENT: usize = 10;

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

struct Candidate<'a> {
    node: &'a NodeInfo,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Looks for the node where the least is lost when pods of lower priority make room.
pub fn preempt(
    pod: &PodInfo,
    snapshot: &Snapshot,
    misfit: &Misfit,
    budgets: &[Arc<PodDisruptionBudget>],
    random: &mut impl Rng,
) -> Preemption {
    if let Some(why_not) = ineligible(pod, snapshot, misfit) {
        return Preemption::NotEligible(why_not);
    }
    let places = &misfit.resolvable;
    let wanted = (places.len() * MIN_CANDIDATES_PERCENT / 100).max(MIN_CANDIDATES);
    let offset = if places.is_empty() { 0 } else { random.random_range(0..places.len()) };
    let mut refused = Misfit { nodes: misfit.nodes, ..Misfit::default() };
    refused.note("Preemption is not helpful for scheduling", misfit.nodes.saturating_sub(places.len()));
    let budgets = parse_budgets(budgets);
    let Ok(prepared) = Prepared::new(pod, snapshot) else { return Preemption::NoNode(refused.to_string()) };
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for i in 0..places.len() {
        let node = &snapshot.nodes()[places[(offset + i) % places.len()]];
        match victims_on(pod, node, prepared.clone(), snapshot, &budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(reasons) => reasons.into_iter().for_each(|reason| refused.note(reason, 1)),
        }
        if candidates.len() >= wanted && candidates.iter().any(|c| c.violations == 0) {
            break;
        }
    }
    match candidates.into_iter().reduce(better) {
        Some(best) => Preemption::Room { node: best.node.name.clone(), victims: best.victims },
        None => Preemption::NoNode(refused.to_string()),
    }
}

fn ineligible(pod: &PodInfo, snapshot: &Snapshot, misfit: &Misfit) -> Option<&'static str> {
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let name = snapshot.nomination(&pod.key).or(pod.nominated())?;
    let place = snapshot.nodes().iter().position(|n| n.name == name)?;
    // A node that can never do is given up, whoever leaves it.
    if !misfit.resolvable.contains(&place) {
        return None;
    }
    let leaving = |p: &Arc<PodInfo>| p.priority < pod.priority && leaves_for_another(p);
    let waits = snapshot.nodes()[place].pods.values().any(leaving);
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Whether the pod is being deleted to make room.
fn leaves_for_another(pod: &PodInfo) -> bool {
    let conditions = pod.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let target = conditions.filter(|c| c.type_ == CONDITION);
    pod.pod.is_deleting() && target.into_iter().any(|c| c.status == "True" && c.reason.as_deref() == Some(REASON))
}

/// What of the node's pods must leave for the pod to fit, or why that would not help.
fn victims_on<'a>(
    pod: &PodInfo,
    node: &'a NodeInfo,
    mut prepared: Prepared,
    snapshot: &Snapshot,
    budgets: &[Budget<'_>],
) -> Result<Candidate<'a>, Vec<String>> {
    let mut lesser: Vec<Arc<PodInfo>> = node.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    lesser.sort_by_cached_key(|p| importance(p));
    let mut emptied = node.clone();
    for victim in &lesser {
        emptied.remove(&victim.key);
        prepared.count(pod, node, victim, -1, snapshot.namespaces());
    }
    if let Some(refusal) = misfit_with_nominated(pod, &emptied, &prepared, snapshot) {
        return Err(refusal.reasons(pod));
    }
    let (violating, rest) = split_by_budget(lesser, budgets);
    let (mut victims, mut violations) = (Vec::new(), 0);
    let protected = violating.len();
    for (i, other) in violating.into_iter().chain(rest).enumerate() {
        emptied.add(Arc::clone(&other));
        prepared.count(pod, node, &other, 1, snapshot.namespaces());
        if misfit_with_nominated(pod, &emptied, &prepared, snapshot).is_some() {
            emptied.remove(&other.key);
            prepared.count(pod, node, &other, -1, snapshot.namespaces());
            violations += usize::from(i < protected);
            victims.push(other);
        }
    }
    victims.sort_by_cached_key(|p| importance(p));
    Ok(Candidate { node, victims, violations })
}

/// When the pod was started; what has not been started yet counts as now.
fn started(pod: &PodInfo) -> String {
    let start = pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    start.map_or_else(|| "~".to_owned(), |time| time.0.to_string())
}

/// The order of pods, the most important first: by priority, then the longest running; their names make it total.
fn importance(pod: &PodInfo) -> (Reverse<i32>, String, String, String) {
    (Reverse(pod.priority), started(pod), pod.key.namespace.clone(), pod.key.name.clone())
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

/// The candidate that costs less; the first of equals.
fn better<'a>(first: Candidate<'a>, second: Candidate<'a>) -> Candidate<'a> {
    if cost(&second) < cost(&first) { second } else { first }
}

/// Fewest budgets hurt, then the lowest highest priority, the lowest sum of priorities, the fewest pods, and the
/// latest start of the longest running of the most important.
fn cost(candidate: &Candidate<'_>) -> (usize, i32, i64, usize, Reverse<String>) {
    let victims = &candidate.victims;
    let highest = victims.first().map_or(i32::MIN, |p| p.priority);
    let sum = victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = victims.iter().filter(|p| p.priority == highest).map(|p| started(p)).min().unwrap_or_default();
    (candidate.violations, highest, sum, victims.len(), Reverse(earliest))
}
