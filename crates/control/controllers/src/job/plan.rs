//! Decides how many pods a Job needs now, whether it is over, and what its conditions say.

use super::backoff::{Failures, finished_at as pod_finished_at};
use super::indexes;
use super::policy::{self, Verdict};
use super::track::Ended;
use crate::context::seconds_between;
use crate::pods;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, PodFailurePolicy, SuccessPolicy};
use pintle_types::k8s::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodTemplateSpec};
use pintle_types::{Kind, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const COMPLETE: &str = "Complete";
pub const FAILED: &str = "Failed";
pub const SUCCESS_MET: &str = "SuccessCriteriaMet";
pub const FAILURE_TARGET: &str = "FailureTarget";
pub const SUSPENDED: &str = "Suspended";
/// Failures of a pod's index before it.
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Those of them that a rule ignores.
const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
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
    /// A pod is replaced only once it has failed, rather than as soon as it is being deleted.
    pub only_replace_failed: bool,
    pub restarts_in_place: bool,
    pub per_index: Option<i32>,
    pub max_failed_indexes: Option<i32>,
    pub failure_policy: Option<PodFailurePolicy>,
    pub success_policy: Option<SuccessPolicy>,
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
            only_replace_failed: spec.pod_replacement_policy.as_deref() == Some("Failed")
                || spec.pod_failure_policy.is_some(),
            restarts_in_place: pod.and_then(|pod| pod.restart_policy.as_deref()) == Some("OnFailure"),
            per_index: spec.backoff_limit_per_index,
            max_failed_indexes: spec.max_failed_indexes,
            failure_policy: spec.pod_failure_policy.clone(),
            success_policy: spec.success_policy.clone(),
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

/// What is known of a Job's pods, with what was not written down yet.
#[derive(Debug, Default)]
pub struct Seen {
    /// All pods that the Job owns.
    pub owned: Vec<Arc<Pod>>,
    pub active: Vec<Arc<Pod>>,
    pub terminating: Vec<Arc<Pod>>,
    pub succeeded: i32,
    pub failed: i32,
    /// Indexes that succeeded, and that failed for good.
    pub completed: BTreeSet<i32>,
    pub failed_indexes: BTreeSet<i32>,
}

impl View {
    /// What becomes of the failure of a pod.
    pub fn judge(&self, pod: &Pod) -> Verdict {
        policy::judge(self.failure_policy.as_ref(), pod)
    }

    /// The index of a pod, when it is one of the Job's.
    pub fn valid_index(&self, pod: &Pod) -> Option<i32> {
        index_of(pod).filter(|index| self.indexed && *index < self.completions.unwrap_or_default())
    }

    /// The indexes that have failed: those that did before, and those of pods that may not be tried again.
    /// Pods that are only deleted because the Job is `over` fail no index.
    pub fn failed_indexes(&self, status: &JobStatus, pods: &[Arc<Pod>], over: bool) -> BTreeSet<i32> {
        let mut failed = indexes::parse(status.failed_indexes.as_deref().unwrap_or_default());
        failed.retain(|index| *index < self.completions.unwrap_or_default());
        let Some(limit) = self.per_index else { return failed };
        let ends_its_index = |pod: &Pod| match self.judge(pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            _ => failures_before(pod, INDEX_FAILURES) >= limit,
        };
        let of_their_own = pods.iter().filter(|pod| !(over && pod.is_deleting()));
        let lost = of_their_own.filter(|pod| self.is_failed(pod) && ends_its_index(pod));
        failed.extend(lost.filter_map(|pod| self.valid_index(pod)));
        failed
    }

    /// The last failed pod of each index that will be tried again: it is held until its successor carries the count.
    pub fn delayed(&self, seen: &Seen) -> BTreeMap<i32, Arc<Pod>> {
        let mut delayed: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        if self.per_index.is_none() {
            return delayed;
        }
        let active: BTreeSet<i32> = seen.active.iter().filter_map(|pod| index_of(pod)).collect();
        let rank = |pod: &Pod| (failures_in_all(pod), pod_finished_at(pod));
        for pod in seen.owned.iter().filter(|pod| self.is_failed(pod)) {
            let Some(index) = self.valid_index(pod) else { continue };
            if seen.completed.contains(&index) || seen.failed_indexes.contains(&index) || active.contains(&index) {
                continue;
            }
            if delayed.get(&index).is_none_or(|known| rank(known) <= rank(pod)) {
                delayed.insert(index, pod.clone());
            }
        }
        delayed
    }
}

fn failures_before(pod: &Pod, annotation: &str) -> i32 {
    pod.annotation(annotation).and_then(|count| count.parse().ok()).unwrap_or_default()
}

fn failures_in_all(pod: &Pod) -> i32 {
    failures_before(pod, INDEX_FAILURES).saturating_add(failures_before(pod, INDEX_IGNORED))
}

/// Whether and why the Job ends now.
pub fn end(view: &View, seen: &Seen, start: Option<Timestamp>, now: Timestamp) -> Option<End> {
    let end = |succeeded: bool, reason: &str, message: &str| {
        Some(End { succeeded, reason: reason.into(), message: message.into() })
    };
    if let Some(message) = fails_job(view, &seen.owned) {
        return end(false, "PodFailurePolicy", &message);
    }
    let restarts = if view.restarts_in_place { seen.active.iter().map(|pod| restarts(pod)).sum() } else { 0 };
    let restarted_too_often = restarts > 0 && restarts >= view.backoff_limit;
    if seen.failed > view.backoff_limit || restarted_too_often {
        return end(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    let passed = start.map(|start| seconds_between(start, now));
    if !view.suspended && view.active_deadline.is_some_and(|limit| passed.is_some_and(|passed| passed >= limit)) {
        return end(false, "DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let lost = number(seen.failed_indexes.len());
    if view.per_index.is_some() && view.max_failed_indexes.is_some_and(|limit| lost > limit) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return end(false, "MaxFailedIndexesExceeded", message);
    }
    let tried = lost.saturating_add(number(seen.completed.len()));
    if view.per_index.is_some() && lost > 0 && tried >= view.completions.unwrap_or_default() {
        return end(false, "FailedIndexes", "Job has failed indexes");
    }
    if view.indexed
        && let Some(message) =
            policy::success(view.success_policy.as_ref(), view.completions.unwrap_or_default(), &seen.completed)
    {
        return end(true, "SuccessPolicy", &message);
    }
    let enough = match view.completions {
        None => seen.succeeded > 0 && seen.active.is_empty(),
        Some(wanted) => seen.succeeded >= wanted,
    };
    if enough { end(true, COMPLETIONS_REACHED, "Reached expected number of succeeded pods") } else { None }
}

/// The reason of a Job that ends because all has been done.
pub const COMPLETIONS_REACHED: &str = "CompletionsReached";

/// The message of the first pod (by name) whose failure fails the Job.
fn fails_job(view: &View, pods: &[Arc<Pod>]) -> Option<String> {
    view.failure_policy.as_ref()?;
    let mut failed: Vec<&Arc<Pod>> = pods.iter().filter(|pod| view.is_failed(pod)).collect();
    failed.sort_by_key(|pod| pod.name().to_owned());
    failed.into_iter().find_map(|pod| match view.judge(pod) {
        Verdict::FailJob(message) => Some(message),
        _ => None,
    })
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = pod.status.as_ref().filter(|_| matches!(pods::phase(pod), "Running" | "Pending")) else {
        return 0;
    };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.map(|container| container.restart_count).sum()
}

/// A pod to create.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewPod {
    /// For an indexed Job.
    pub index: Option<i32>,
    /// The pod of the same index that failed before, when each index has a limit of its own.
    pub replaces: Option<Arc<Pod>>,
}

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub enum Scaling {
    Nothing,
    Create(Vec<NewPod>),
    Delete(Vec<Arc<Pod>>),
    /// Pods are missing, but failures are too recent.
    Wait(Duration),
}

/// Compares the pods that run with those that should. Pods that terminate hold their place if they must have failed
/// before they are replaced.
pub fn scale(
    view: &View,
    seen: &Seen,
    failures: Failures,
    delayed: &BTreeMap<i32, Arc<Pod>>,
    now: Timestamp,
) -> Scaling {
    let running = number(seen.active.len());
    let wanted = match view.completions {
        _ if view.suspended => 0,
        None if seen.succeeded > 0 => running,
        None => view.parallelism,
        Some(completions) => view.parallelism.min((completions - seen.succeeded).max(0)),
    };
    let surplus = surplus(view, &seen.active, usize::try_from(running - wanted).unwrap_or_default(), now);
    if !surplus.is_empty() {
        return Scaling::Delete(surplus);
    }
    let held = if view.only_replace_failed { number(seen.terminating.len()) } else { 0 };
    let missing = usize::try_from(wanted.saturating_sub(running).saturating_sub(held)).unwrap_or_default().min(BURST);
    if missing == 0 {
        return Scaling::Nothing;
    }
    let wait = failures.wait(now);
    if view.per_index.is_none() && !wait.is_zero() {
        return Scaling::Wait(wait);
    }
    if !view.indexed {
        return Scaling::Create(vec![NewPod::default(); missing]);
    }
    create_indexed(free_indexes(view, seen, missing), delayed, now)
}

/// The pods that are too many: of an indexed Job first those that share an index or have none.
fn surplus(view: &View, active: &[Arc<Pod>], at_least: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut ranked: Vec<Arc<Pod>> = active.to_vec();
    ranked.sort_by(|a, b| pods::deletion_order((a, 0), (b, 0), now));
    let mut chosen = Vec::new();
    if view.indexed {
        let mut kept = BTreeSet::new();
        // From the back, so that of an index the pod stays that would be the last to be deleted.
        let (stay, go): (Vec<_>, Vec<_>) =
            ranked.into_iter().rev().partition(|pod| view.valid_index(pod).is_some_and(|index| kept.insert(index)));
        chosen.extend(go);
        ranked = stay.into_iter().rev().collect();
    }
    let more = at_least.saturating_sub(chosen.len());
    chosen.extend(ranked.into_iter().take(more));
    chosen.truncate(BURST);
    chosen
}

/// The lowest indexes that nothing was done about yet.
fn free_indexes(view: &View, seen: &Seen, count: usize) -> Vec<i32> {
    let held = if view.only_replace_failed { seen.terminating.as_slice() } else { &[] };
    let taken: BTreeSet<i32> = seen.active.iter().chain(held).filter_map(|pod| index_of(pod)).collect();
    let is_free =
        |index: &i32| !taken.contains(index) && !seen.completed.contains(index) && !seen.failed_indexes.contains(index);
    (0..view.completions.unwrap_or_default()).filter(is_free).take(count).collect()
}

/// Creates pods for the indexes whose own wait is over; when none's is, waits for the first.
fn create_indexed(indexes: Vec<i32>, delayed: &BTreeMap<i32, Arc<Pod>>, now: Timestamp) -> Scaling {
    let wait = |index: &i32| {
        let Some(pod) = delayed.get(index) else { return Duration::ZERO };
        let before = u32::try_from(failures_in_all(pod)).unwrap_or_default();
        Failures { in_a_row: before.saturating_add(1), last: Some(pod_finished_at(pod)) }.wait(now)
    };
    let (due, later): (Vec<i32>, Vec<i32>) = indexes.into_iter().partition(|index| wait(index).is_zero());
    if due.is_empty() {
        return later.iter().map(wait).min().map_or(Scaling::Nothing, Scaling::Wait);
    }
    let new = |index: i32| NewPod { index: Some(index), replaces: delayed.get(&index).cloned() };
    Scaling::Create(due.into_iter().map(new).collect())
}

/// The completion index of a pod.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotation(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

impl Seen {
    /// Looks at the pods of a Job, of which some `ended` since the status was written.
    pub fn of(view: &View, status: &JobStatus, owned: Vec<Arc<Pod>>, ended: &Ended, over: bool) -> Self {
        let select = |test: fn(&Pod) -> bool| owned.iter().filter(|pod| test(pod)).cloned().collect();
        let written = status.uncounted_terminated_pods.as_ref();
        let noted = |uids: Option<&Vec<String>>| number(uids.map_or(0, Vec::len));
        let counting = ended.failed.iter().filter(|pod| view.judge(pod) != Verdict::Ignore).count();
        let mut seen =
            Self { active: select(pods::is_active), terminating: select(pods::is_terminating), ..Self::default() };
        seen.failed = status.failed.unwrap_or_default().saturating_add(number(counting));
        seen.failed += noted(written.and_then(|written| written.failed.as_ref()));
        if view.indexed {
            seen.completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());
            seen.completed.retain(|index| *index < view.completions.unwrap_or_default());
            seen.completed.extend(ended.succeeded.iter().filter_map(|pod| view.valid_index(pod)));
            seen.failed_indexes = view.failed_indexes(status, &owned, over);
            seen.succeeded = number(seen.completed.len());
        } else {
            seen.succeeded = status.succeeded.unwrap_or_default().saturating_add(number(ended.succeeded.len()));
            seen.succeeded += noted(written.and_then(|written| written.succeeded.as_ref()));
        }
        seen.owned = owned;
        seen
    }

    /// Tells the indexes in a status.
    pub fn tell_indexes(&self, view: &View, status: &mut JobStatus) {
        if view.indexed {
            status.succeeded = (self.succeeded > 0).then_some(self.succeeded);
            status.completed_indexes = (self.succeeded > 0).then(|| indexes::format(&self.completed));
            status.failed_indexes = view.per_index.map(|_| indexes::format(&self.failed_indexes));
        }
    }
}

/// What the name of a pod with an index begins with, short enough that a generated end leaves the index readable.
pub fn indexed_prefix(job: &str, index: i32) -> String {
    const LONGEST: usize = 58;
    let end = format!("-{index}");
    let room = LONGEST.saturating_sub(end.len() + 1);
    let kept = job.char_indices().map(|(at, letter)| at + letter.len_utf8()).take_while(|at| *at <= room).last();
    format!("{}{end}", &job[..kept.unwrap_or_default()])
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

/// Writes into a pod's annotations how often its index failed before, when indexes have limits of their own.
pub fn carry_failures(view: &View, meta: &mut pintle_types::ObjectMeta, replaces: Option<&Pod>) {
    if view.per_index.is_none() {
        return;
    }
    let count = |annotation| replaces.map_or(0, |pod| failures_before(pod, annotation));
    let (mut counted, mut ignored) = (count(INDEX_FAILURES), count(INDEX_IGNORED));
    match replaces.map(|pod| view.judge(pod)) {
        None => (),
        Some(Verdict::Ignore) => ignored = ignored.saturating_add(1),
        Some(_) => counted = counted.saturating_add(1),
    }
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(INDEX_FAILURES.into(), counted.to_string());
    if ignored > 0 {
        annotations.insert(INDEX_IGNORED.into(), ignored.to_string());
    }
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
