//! The status of a Deployment: counts, and the conditions that tell whether a rollout gets on.

use super::plan::{Wanted, actual, available, sum};
use pintle_clock::Timestamp;
use pintle_types::k8s::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use pintle_types::{Kind, Time};
use std::sync::Arc;
use std::time::Duration;

pub const PROGRESSING: &str = "Progressing";
pub const AVAILABLE: &str = "Available";
pub const REPLICA_FAILURE: &str = "ReplicaFailure";
pub const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// A condition as it is now.
pub fn condition(type_: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Sets a condition; one that says the same already stays as it is.
pub fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

pub fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// The seconds that a rollout may stand still; nothing when it may for ever.
pub fn deadline(deployment: &Deployment) -> Option<i64> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then_some(i64::from(seconds))
}

/// The counts and the `Available` condition.
pub fn counts(
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> DeploymentStatus {
    fn ready(set: &ReplicaSet) -> i32 {
        set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default()
    }
    fn terminating(set: &ReplicaSet) -> Option<i32> {
        set.status.as_ref()?.terminating_replicas
    }
    let old = deployment.status.clone().unwrap_or_default();
    let some = |number: i32| (number > 0).then_some(number);
    let (total, up) = (sum(all, actual), sum(all, available));
    let desired = sum(all, super::plan::replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(total),
        updated_replicas: some(sum(new, actual)),
        ready_replicas: some(sum(all, ready)),
        available_replicas: some(up),
        unavailable_replicas: some(desired - up),
        terminating_replicas: all.iter().map(|set| terminating(set)).sum(),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let enough = up >= Wanted::of(deployment).min_available();
    set(
        &mut status,
        match enough {
            true => {
                let message = "Deployment has minimum availability.".to_owned();
                condition(AVAILABLE, "True", "MinimumReplicasAvailable", message, now)
            }
            false => {
                let message = "Deployment does not have minimum availability.".to_owned();
                condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now)
            }
        },
    );
    status
}

/// Whether all pods are of the new template and available.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(Wanted::of(deployment).replicas);
    let count = |number: Option<i32>| Some(number.unwrap_or_default());
    count(status.updated_replicas) == wanted
        && count(status.replicas) == wanted
        && count(status.available_replicas) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether the counts got better since the last status.
fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let of = |number: Option<i32>| number.unwrap_or_default();
    let outdated = |status: &DeploymentStatus| of(status.replicas) - of(status.updated_replicas);
    of(new.updated_replicas) > of(old.updated_replicas)
        || outdated(new) < outdated(old)
        || of(new.ready_replicas) > of(old.ready_replicas)
        || of(new.available_replicas) > of(old.available_replicas)
}

/// Whether the rollout has stood still for longer than its deadline.
pub fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(limit), Some(progressing)) = (deadline(deployment), find(status, PROGRESSING)) else { return false };
    match progressing.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => progressing.last_update_time.as_ref().is_some_and(|at| at.0.as_second() + limit < now.as_second()),
    }
}

/// The whole status during a rollout.
pub fn of_rollout(
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = counts(deployment, all, new, now);
    progress(deployment, &mut status, new, now);
    let failures = new.into_iter().chain(all).filter_map(|set| set.status.as_ref()?.conditions.as_ref());
    match failures.flatten().find(|condition| condition.type_ == REPLICA_FAILURE) {
        None => remove(&mut status, REPLICA_FAILURE),
        Some(failure) => set(
            &mut status,
            DeploymentCondition {
                type_: REPLICA_FAILURE.into(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time.clone(),
            },
        ),
    }
    status
}

fn progress(deployment: &Deployment, status: &mut DeploymentStatus, new: Option<&Arc<ReplicaSet>>, now: Timestamp) {
    if deadline(deployment).is_none() {
        remove(status, PROGRESSING);
        return;
    }
    let current = find(status, PROGRESSING).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|current| current.reason.as_deref() == Some(NEW_SET_AVAILABLE));
    if was_complete {
        return;
    }
    let subject = match new {
        Some(set) => format!("ReplicaSet {:?}", set.name()),
        None => format!("Deployment {:?}", deployment.name()),
    };
    let old = deployment.status.clone().unwrap_or_default();
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now));
    } else if is_progressing(&old, status) {
        let mut next = condition(PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."), now);
        if let Some(current) = current {
            if current.status == "True" {
                next.last_transition_time = current.last_transition_time;
            }
            // The same condition again is news: it moves the deadline.
            remove(status, PROGRESSING);
        }
        set(status, next);
    } else if is_timed_out(deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        set(status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
    }
}

/// When to look again whether the deadline has passed.
pub fn check_again(deployment: &Deployment, now: Timestamp) -> Option<Duration> {
    let status = deployment.status.as_ref()?;
    let progressing = find(status, PROGRESSING)?;
    if is_complete(deployment, status) || matches!(progressing.reason.as_deref(), Some(TIMED_OUT | NEW_SET_AVAILABLE)) {
        return None;
    }
    let at = progressing.last_update_time.as_ref()?.0.as_second() + deadline(deployment)?;
    let seconds = u64::try_from(at - now.as_second()).unwrap_or_default();
    Some(Duration::from_secs(seconds + 1))
}
