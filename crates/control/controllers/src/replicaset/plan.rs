//! Decides how many pods to create, which to delete, and what the status is.

use super::set::Status;
use crate::ownership::labels_of;
use crate::pods::{deletion_order, is_available, is_ready};
use pintle_clock::Timestamp;
use pintle_types::Time;
use pintle_types::k8s::api::apps::v1::ReplicaSetCondition;
use pintle_types::k8s::api::core::v1::{Pod, PodTemplateSpec};
use std::collections::HashMap;
use std::sync::Arc;

/// Pods created or deleted in one go at most.
const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub enum Scaling {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares the active pods with the number that is wanted. `related` are the pods of all sets with the same owner,
/// which should not crowd on one node.
pub fn scale(wanted: i32, active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Scaling {
    let wanted = usize::try_from(wanted).unwrap_or_default();
    if active.len() < wanted {
        return Scaling::Create((wanted - active.len()).min(BURST));
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Scaling::Nothing;
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| crate::pods::is_active(pod)) {
        *on_node.entry(crate::pods::node_name(pod)).or_default() += 1;
    }
    let doubled = |pod: &Pod| match crate::pods::node_name(pod) {
        "" => 0,
        node => on_node.get(node).copied().unwrap_or_default(),
    };
    let mut ranked: Vec<&Arc<Pod>> = active.iter().collect();
    ranked.sort_by(|a, b| deletion_order((a, doubled(a)), (b, doubled(b)), now));
    Scaling::Delete(ranked.into_iter().take(surplus).cloned().collect())
}

/// What the status is computed from.
pub struct Observed<'a> {
    pub generation: i64,
    pub min_ready_seconds: i32,
    pub template: Option<&'a PodTemplateSpec>,
    pub active: &'a [Arc<Pod>],
    /// Pods that are being deleted; nothing for kinds that don't tell.
    pub terminating: Option<usize>,
    /// Why creating or deleting pods failed.
    pub failure: Option<(&'static str, String)>,
}

/// The status after a look at the pods.
pub fn status(old: &Status, observed: &Observed<'_>, now: Timestamp) -> Status {
    let count = |test: &dyn Fn(&Pod) -> bool| number(observed.active.iter().filter(|pod| test(pod)).count());
    let template_labels = observed.template.and_then(|t| t.metadata.as_ref()).map(labels_of);
    let fully_labeled = |pod: &Pod| {
        let labels = labels_of(&pod.metadata);
        template_labels.is_none_or(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
    };
    let some = |number: i32| (number > 0).then_some(number);
    Status {
        replicas: number(observed.active.len()),
        fully_labeled_replicas: some(count(&fully_labeled)),
        ready_replicas: some(count(&is_ready)),
        available_replicas: some(count(&|pod| is_available(pod, observed.min_ready_seconds, now))),
        terminating_replicas: observed.terminating.map(number),
        observed_generation: Some(observed.generation),
        conditions: conditions(old, observed.failure.as_ref(), now),
    }
}

fn conditions(
    old: &Status,
    failure: Option<&(&'static str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const TYPE: &str = "ReplicaFailure";
    let mut list = old.conditions.clone().unwrap_or_default();
    match failure {
        None => list.retain(|condition| condition.type_ != TYPE),
        Some((reason, _)) if list.iter().any(|c| c.type_ == TYPE && c.reason.as_deref() == Some(reason)) => (),
        Some((reason, message)) => {
            list.retain(|condition| condition.type_ != TYPE);
            list.push(ReplicaSetCondition {
                type_: TYPE.into(),
                status: "True".into(),
                reason: Some((*reason).into()),
                message: Some(message.clone()),
                last_transition_time: Some(Time(now)),
            });
        }
    }
    (!list.is_empty()).then_some(list)
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
