//! Decides whether a CronJob's time has come, and which old Jobs to forget.

use super::schedule::Schedule;
use crate::job::finished_at;
use crate::ownership::controller_ref;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::batch::v1::{CronJob, Job};
use pintle_types::{Kind, ObjectMeta};
use std::sync::Arc;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are told as many.
const MANY: usize = 100;

/// The times that have come since the last.
#[derive(Debug, PartialEq)]
pub struct Missed {
    /// The last of them.
    pub last: Option<Timestamp>,
    pub too_many: bool,
}

/// Looks for times between the last run (or the creation) and now, not older than the starting deadline.
pub fn missed(cron: &CronJob, schedule: &Schedule, now: Timestamp) -> Missed {
    let spec = cron.spec.clone();
    let last_run = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let mut from = last_run.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    if let Some(deadline) = spec.starting_deadline_seconds {
        let oldest = Timestamp::from_second(now.as_second() - deadline).unwrap_or(now);
        from = from.max(oldest);
    }
    let mut missed = Missed { last: None, too_many: false };
    let mut count = 0;
    while let Some(next) = schedule.next(from).filter(|next| *next <= now) {
        (missed.last, from) = (Some(next), next);
        count += 1;
        if count > MANY {
            missed.too_many = true;
            // Near now there is at most one more: looking at each of years of minutes would take long.
            let near = Timestamp::from_second(now.as_second() - 24 * 3600).unwrap_or(now);
            from = from.max(near);
            if count > MANY + 2000 {
                break;
            }
        }
    }
    missed
}

/// The Job of a time.
pub fn job(cron: &CronJob, at: Timestamp) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.into(), at.to_string());
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
