//! Watches CronJobs and their Jobs, and wakes itself for the next time.

use super::plan;
use super::schedule::Schedule;
use crate::context::Context;
use crate::job::finished_at;
use crate::ownership::{BY_CONTROLLER, index_by_owner, owner_key};
use pintle_client::{ClientError, DeleteOptions, Propagation};
use pintle_informer::{EventType, Informer, Outcome, Queue, reference, run_reconciler};
use pintle_types::k8s::api::batch::v1::{CronJob, CronJobStatus, Job};
use pintle_types::{Kind, ObjectKey, Time};
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 3;

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let (crons, jobs) = (context.informers.of::<CronJob>(), context.informers.of::<Job>());
    index_by_owner(&jobs);
    let queue: Queue<ObjectKey> = Queue::new();
    let from_crons = queue.clone();
    crons.on_change(move |change| from_crons.add(change.object().key()));
    let from_jobs = queue.clone();
    jobs.on_change(move |change| {
        owner_key::<CronJob>(&change.object().metadata).into_iter().for_each(|key| from_jobs.add(key));
    });
    crons.synced().await;
    jobs.synced().await;
    let controller = Controller { context: context.clone(), crons, jobs };
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("cronjob-controller", queue, WORKERS, reconcile, context.stop.clone()).await;
}

struct Controller {
    context: Context,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(cron) = self.crons.get(&key) else { return Ok(Outcome::Done) };
        let jobs = self.jobs.by_index(BY_CONTROLLER, cron.uid());
        let cron = self.note_finished(&cron, &jobs).await?;
        for job in plan::beyond_history(&cron, &jobs) {
            self.delete(&cron, &job).await?;
        }
        let spec = cron.spec.clone();
        if cron.is_deleting() || spec.suspend.unwrap_or_default() {
            return Ok(Outcome::Done);
        }
        let recorder = &self.context.recorder;
        if let Some(zone) = spec.time_zone.filter(|zone| !matches!(zone.as_str(), "UTC" | "Etc/UTC")) {
            let message = format!("invalid timeZone: {zone:?}: only UTC is supported");
            recorder.event(&cron, EventType::Warning, "UnknownTimeZone", message);
            return Ok(Outcome::Done);
        }
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                recorder.event(&cron, EventType::Warning, "UnparseableSchedule", message);
                return Ok(Outcome::Done);
            }
        };
        self.start_due(cron, &jobs, &schedule).await?;
        let now = self.context.clock.now();
        let Some(next) = schedule.next(now) else { return Ok(Outcome::Done) };
        let wait = next.duration_since(now);
        // A little late rather than a little early.
        Ok(Outcome::After(Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(100)))
    }

    /// Starts the Job whose time has come, as far as the concurrency policy lets it.
    async fn start_due(&self, mut cron: CronJob, jobs: &[Arc<Job>], schedule: &Schedule) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        let missed = plan::missed(&cron, schedule, self.context.now());
        let Some(at) = missed.last else { return Ok(()) };
        if missed.too_many {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            recorder.event(&cron, EventType::Warning, "TooManyMissedTimes", message);
        }
        let policy = cron.spec.concurrency_policy.clone().unwrap_or_default();
        let active: Vec<&Arc<Job>> =
            jobs.iter().filter(|job| finished_at(job).is_none() && !job.is_deleting()).collect();
        let new = plan::job(&cron, at);
        if active.iter().any(|job| job.name() == new.name()) {
            return Ok(());
        }
        if policy == "Forbid" && !active.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            recorder.event(&cron, EventType::Normal, "JobAlreadyActive", message);
            return Ok(());
        }
        if policy == "Replace" {
            for job in active {
                self.delete(&cron, job).await?;
            }
        }
        match self.context.client.create(&new).await {
            Ok(job) => {
                let message = format!("Created job {}", job.name());
                recorder.event(&cron, EventType::Normal, "SuccessfulCreate", message);
                cron.status.get_or_insert_default().active.get_or_insert_default().push(reference(&job));
            }
            Err(error) if error.is_already_exists() => (),
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) => {
                recorder.event(&cron, EventType::Warning, "FailedCreate", format!("Error creating job: {error}"));
                return Err(error);
            }
        }
        cron.status.get_or_insert_default().last_schedule_time = Some(Time(at));
        self.context.client.update_status(&cron).await.map(drop)
    }

    /// Brings the list of active Jobs up to date, and returns the CronJob with it.
    async fn note_finished(&self, cron: &Arc<CronJob>, jobs: &[Arc<Job>]) -> Result<CronJob, ClientError> {
        let recorder = &self.context.recorder;
        let mut status: CronJobStatus = cron.status.clone().unwrap_or_default();
        let mut active = status.active.take().unwrap_or_default();
        for job in jobs {
            let listed = active.iter().position(|known| known.uid.as_deref() == Some(job.uid()));
            match (listed, finished_at(job)) {
                (Some(at), Some(finished)) => {
                    active.remove(at);
                    let well = plan::has_succeeded(job);
                    let condition = if well { "Complete" } else { "Failed" };
                    let message = format!("Saw completed job: {}, condition: {condition}", job.name());
                    recorder.event(&**cron, EventType::Normal, "SawCompletedJob", message);
                    if well && status.last_successful_time.as_ref().is_none_or(|last| last.0 < finished) {
                        status.last_successful_time = Some(Time(finished));
                    }
                }
                (None, None) if !job.is_deleting() => active.push(reference(&**job)),
                _ => (),
            }
        }
        active.retain(|known| {
            let key = ObjectKey::new(cron.namespace(), known.name.as_deref().unwrap_or_default());
            self.jobs.get(&key).is_some_and(|job| Some(job.uid()) == known.uid.as_deref())
        });
        status.active = (!active.is_empty()).then_some(active);
        let mut changed = CronJob::clone(cron);
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(changed);
        }
        changed.status = Some(status);
        self.context.client.update_status(&changed).await
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), ClientError> {
        let mut options = DeleteOptions::of_uid(job.uid());
        options.propagation_policy = Some(Propagation::Background);
        match self.context.client.delete::<Job>(job.namespace(), job.name(), &options).await {
            Ok(()) => {
                let message = format!("Deleted job {}", job.name());
                self.context.recorder.event(cron, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
