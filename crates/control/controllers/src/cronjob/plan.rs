//! Decides whether a CronJob's time has come, and which old Jobs to forget.

use super::schedule::Schedule;
use crate::context::seconds_between;
use crate::job::finished_at;
use crate::ownership::controller_ref;
use jiff::tz::TimeZone;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::batch::v1::{CronJob, Job};
use pintle_types::{Kind, ObjectMeta};
use std::sync::Arc;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are told as many.
const MANY: i64 = 100;

/// The times that have come since the last.
#[derive(Debug, PartialEq)]
pub struct Missed {
    /// What they were counted from.
    pub since: Timestamp,
    /// The last of them.
    pub last: Option<Timestamp>,
    pub too_many: bool,
}

/// Looks for times between the last run (or the creation) and now, not older than the starting deadline if that is to
/// `limit` them. How many there were is estimated from the distance of the first two.
pub fn missed(cron: &CronJob, schedule: &Schedule, now: Timestamp, limit: bool) -> Missed {
    let last_run = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let mut since = last_run.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    if let Some(deadline) = cron.spec.starting_deadline_seconds.filter(|_| limit) {
        let oldest = Timestamp::from_second(now.as_second().saturating_sub(deadline)).unwrap_or(since);
        since = since.max(oldest);
    }
    let none = Missed { since, last: None, too_many: false };
    let Some(first) = schedule.next(since).filter(|first| *first <= now) else { return none };
    let one = Missed { last: Some(first), ..none };
    let Some(second) = schedule.next(first).filter(|second| *second <= now) else { return one };
    let between = seconds_between(first, second).max(1);
    let count = seconds_between(first, now) / between + 1;
    // One further back than the last should be, for the schedule itself to say exactly.
    let near = first.as_second() + (count - 2) * between;
    let mut at = Timestamp::from_second(near).unwrap_or(first);
    let mut last = None;
    while let Some(next) = schedule.next(at).filter(|next| *next <= now) {
        (last, at) = (Some(next), next);
    }
    Missed { last, too_many: count > MANY, ..one }
}

/// When to look again: at the time after the last that has come.
pub fn wake(cron: &CronJob, schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    let missed = missed(cron, schedule, now, false);
    schedule.next(missed.last.unwrap_or(missed.since))
}

/// The Job of a time, which is told in the zone.
pub fn job(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let offset = zone.to_offset(at);
    let told = if offset.is_zero() { at.to_string() } else { at.display_with_offset(offset).to_string() };
    annotations.insert(SCHEDULED.into(), told);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name(), at.as_second() / 60)),
            namespace: Some(cron.namespace().to_owned()),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Finished Jobs beyond the history that is to be kept, the oldest first.
pub fn beyond_history(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let spec = cron.spec.clone();
    let mut surplus = Vec::new();
    for (succeeded, limit) in
        [(true, spec.successful_jobs_history_limit.unwrap_or(3)), (false, spec.failed_jobs_history_limit.unwrap_or(1))]
    {
        let fits =
            |job: &&Arc<Job>| finished_at(job).is_some() && has_succeeded(job) == succeeded && !job.is_deleting();
        let mut finished: Vec<Arc<Job>> = jobs.iter().filter(fits).cloned().collect();
        finished.sort_by_key(|job| (job.status.as_ref().and_then(|s| s.start_time.clone()), job.name().to_owned()));
        let count = finished.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        surplus.extend(finished.into_iter().take(count));
    }
    surplus
}

/// Whether a finished Job ended well.
pub fn has_succeeded(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
}
