//! Decides how many pods a Job needs now, whether it is over, and what its conditions say.

use super::indexes;
use crate::context::seconds_between;
use crate::pods;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use pintle_types::k8s::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodTemplateSpec};
use pintle_types::{Kind, Time};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const COMPLETE: &str = "Complete";
pub const FAILED: &str = "Failed";
pub const SUCCESS_MET: &str = "SuccessCriteriaMet";
pub const FAILURE_TARGET: &str = "FailureTarget";
pub const SUSPENDED: &str = "Suspended";
/// Pods created or deleted in one go at most.
const BURST: usize = 500;

/// Why a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
}

/// A Job as the decisions need it.
#[derive(Clone, Debug)]
pub struct View {
    pub parallelism: i32,
    /// Nothing for a Job that works off a queue of its own.
    pub completions: Option<i32>,
    pub indexed: bool,
    pub suspended: bool,
    pub backoff_limit: i32,
    pub active_deadline: Option<i64>,
    pub only_replace_failed: bool,
    pub restarts_in_place: bool,
}

impl View {
    pub fn of(spec: &JobSpec) -> Self {
        let pod = spec.template.spec.as_ref();
        Self {
            parallelism: spec.parallelism.unwrap_or(1),
            completions: spec.completions,
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
            suspended: spec.suspend.unwrap_or_default(),
            backoff_limit: spec.backoff_limit.unwrap_or(6),
            active_deadline: spec.active_deadline_seconds,
            only_replace_failed: spec.pod_replacement_policy.as_deref() == Some("Failed"),
            restarts_in_place: pod.and_then(|pod| pod.restart_policy.as_deref()) == Some("OnFailure"),
        }
    }

    /// Whether the pod counts as failed. One that is being deleted does, because it may never say how it ended.
    pub fn is_failed(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Failed"
            || (!self.only_replace_failed && pod.is_deleting() && pods::phase(pod) != "Succeeded")
    }
}

pub fn condition<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// When the Job finished; nothing while it has not.
pub fn finished_at(job: &Job) -> Option<Timestamp> {
    let finished = condition(job, COMPLETE).or_else(|| condition(job, FAILED))?;
    Some(finished.last_transition_time.as_ref().or(job.metadata.creation_timestamp.as_ref())?.0)
}

/// The end that was decided on before, when it only waits for pods to end.
pub fn decided(job: &Job) -> Option<End> {
    let (condition, succeeded) = match condition(job, SUCCESS_MET) {
        Some(met) => (met, true),
        None => (condition(job, FAILURE_TARGET)?, false),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Some(End { succeeded, reason: text(&condition.reason), message: text(&condition.message) })
}

/// Whether and why the Job ends now. The counts include what was not written down yet.
pub fn end(
    view: &View,
    active: &[Arc<Pod>],
    succeeded: i32,
    failed: i32,
    start: Option<Timestamp>,
    now: Timestamp,
) -> Option<End> {
    let failure =
        |reason: &str, message: &str| Some(End { succeeded: false, reason: reason.into(), message: message.into() });
    let restarts = if view.restarts_in_place { active.iter().map(|pod| restarts(pod)).sum() } else { 0 };
    let restarted_too_often = restarts > 0 && restarts >= view.backoff_limit;
    if failed > view.backoff_limit || restarted_too_often {
        return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    let passed = start.map(|start| seconds_between(start, now));
    if !view.suspended && view.active_deadline.is_some_and(|limit| passed.is_some_and(|passed| passed >= limit)) {
        return failure("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let enough = match view.completions {
        None => succeeded > 0 && active.is_empty(),
        Some(wanted) => succeeded >= wanted,
    };
    let message = "Reached expected number of succeeded pods".to_owned();
    enough.then(|| End { succeeded: true, reason: "CompletionsReached".into(), message })
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = pod.status.as_ref().filter(|_| matches!(pods::phase(pod), "Running" | "Pending")) else {
        return 0;
    };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.map(|container| container.restart_count).sum()
}

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub enum Scaling {
    Nothing,
    /// With the index of each, for an indexed Job.
    Create(Vec<Option<i32>>),
    Delete(Vec<Arc<Pod>>),
}

/// Compares the pods that run with those that should. `terminating` pods hold their place if they must have failed
/// before they are replaced.
pub fn scale(
    view: &View,
    active: &[Arc<Pod>],
    terminating: usize,
    succeeded: i32,
    completed: &BTreeSet<i32>,
    now: Timestamp,
) -> Scaling {
    let running = number(active.len());
    let wanted = match view.completions {
        _ if view.suspended => 0,
        None if succeeded > 0 => running.min(view.parallelism),
        None => view.parallelism,
        Some(completions) => view.parallelism.min((completions - succeeded).max(0)),
    };
    if running > wanted {
        let surplus = usize::try_from(running - wanted).unwrap_or_default().min(BURST);
        let mut ranked: Vec<&Arc<Pod>> = active.iter().collect();
        ranked.sort_by(|a, b| pods::deletion_order((a, 0), (b, 0), now));
        return Scaling::Delete(ranked.into_iter().take(surplus).cloned().collect());
    }
    let held = if view.only_replace_failed { number(terminating) } else { 0 };
    let missing = usize::try_from(wanted - running - held).unwrap_or_default().min(BURST);
    if missing == 0 {
        return Scaling::Nothing;
    }
    if !view.indexed {
        return Scaling::Create(vec![None; missing]);
    }
    let taken: BTreeSet<i32> = active.iter().filter_map(|pod| index_of(pod)).collect();
    let free = (0..view.completions.unwrap_or_default()).filter(|i| !taken.contains(i) && !completed.contains(i));
    let chosen: Vec<Option<i32>> = free.take(missing).map(Some).collect();
    if chosen.is_empty() { Scaling::Nothing } else { Scaling::Create(chosen) }
}

/// The completion index of a pod.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotation(INDEX)?.parse().ok()
}

/// The completion indexes that a Job has behind it.
pub fn completed_indexes(status: &JobStatus) -> BTreeSet<i32> {
    indexes::parse(status.completed_indexes.as_deref().unwrap_or_default())
}

/// The template of the pod with an index.
pub fn indexed_template(template: &PodTemplateSpec, job: &str, index: i32) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
    meta.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let spec = template.spec.get_or_insert_default();
    spec.hostname = Some(format!("{job}-{index}"));
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".into(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|known| known.name == variable.name) {
            env.push(variable.clone());
        }
    }
    template
}

/// How long to wait with new pods after failures in a row: ten seconds that double, ten minutes at most.
pub fn backoff(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let delay = 10_u64.saturating_mul(1 << (failures - 1).min(16)).min(600);
    let passed = u64::try_from(seconds_between(last, now)).unwrap_or_default();
    Duration::from_secs(delay.saturating_sub(passed))
}

/// When a finished pod ended, as far as it tells.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    let ended = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ended.map(|time| time.0).max()
}

/// Sets a condition; one that has the same value already stays.
pub fn set_condition(status: &mut JobStatus, type_: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|condition| condition.type_ == type_ && condition.status == value) {
        return;
    }
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(JobCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

pub fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
