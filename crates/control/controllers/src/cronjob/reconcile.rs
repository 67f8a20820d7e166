//! Watches CronJobs and their Jobs, and wakes itself for the next time.

use super::plan;
use super::schedule::Schedule;
use super::zone;
use crate::context::{Context, seconds_between};
use crate::job::finished_at;
use crate::ownership::{BY_CONTROLLER, controller_of, index_by_owner, owner_key};
use jiff::tz::TimeZone;
use pintle_client::{ClientError, DeleteOptions, Propagation, unless_missing};
use pintle_informer::{EventType, Informer, Outcome, Queue, reference, run_reconciler};
use pintle_types::k8s::api::batch::v1::{CronJob, Job};
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
        let Some(known) = self.crons.get(&key) else { return Ok(Outcome::Done) };
        let jobs = self.jobs.by_index(BY_CONTROLLER, known.uid());
        let mut cron = CronJob::clone(&known);
        self.note_finished(&mut cron, &jobs).await?;
        let result = if cron.is_deleting() { Ok(Outcome::Done) } else { self.start(&mut cron, &jobs).await };
        for job in plan::beyond_history(&cron, &jobs) {
            self.delete(&mut cron, &job).await?;
        }
        if cron.status.clone().unwrap_or_default() != known.status.clone().unwrap_or_default() {
            unless_missing(self.context.client.update_status(&cron).await)?;
        }
        result
    }

    /// Starts what is due, and says when to look again.
    async fn start(&self, cron: &mut CronJob, jobs: &[Arc<Job>]) -> Result<Outcome, ClientError> {
        let recorder = &self.context.recorder;
        let warn = |cron: &CronJob, reason, message: String| recorder.event(cron, EventType::Warning, reason, message);
        let name = cron.spec.time_zone.clone().unwrap_or_default();
        let zone = match zone::load(&name) {
            Ok(zone) => zone,
            Err(error) => {
                warn(cron, "UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}"));
                return Ok(Outcome::Done);
            }
        };
        if cron.spec.suspend.unwrap_or_default() {
            return Ok(Outcome::Done);
        }
        let text = &cron.spec.schedule;
        if text.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            warn(cron, "UnsupportedSchedule", message);
        }
        let schedule = match Schedule::parse(text, &zone) {
            Ok(schedule) => schedule,
            Err(error) => {
                warn(cron, "UnparseableSchedule", format!("unparseable schedule: {text:?} : {error}"));
                return Ok(Outcome::Done);
            }
        };
        self.start_due(cron, jobs, &schedule, &zone).await?;
        let now = self.context.clock.now();
        let Some(next) = plan::wake(cron, &schedule, now) else { return Ok(Outcome::Done) };
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        // A little late rather than a little early.
        Ok(Outcome::After(wait + Duration::from_millis(100)))
    }

    /// Starts the Job whose time has come, as far as the concurrency policy lets it.
    async fn start_due(
        &self,
        cron: &mut CronJob,
        jobs: &[Arc<Job>],
        schedule: &Schedule,
        zone: &TimeZone,
    ) -> Result<(), ClientError> {
        let (recorder, now) = (&self.context.recorder, self.context.now());
        let missed = plan::missed(cron, schedule, now, true);
        let Some(at) = missed.last else { return Ok(()) };
        if missed.too_many {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            recorder.event(cron, EventType::Warning, "TooManyMissedTimes", message);
        }
        if cron.spec.starting_deadline_seconds.is_some_and(|deadline| seconds_between(at, now) > deadline) {
            let told = at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z");
            let message = format!("Missed scheduled time to start a job: {told}");
            recorder.event(cron, EventType::Warning, "MissSchedule", message);
            return Ok(());
        }
        let new = plan::job(cron, at, zone);
        let status = cron.status.clone().unwrap_or_default();
        let active = status.active.unwrap_or_default();
        let is_active = |name: &str| active.iter().any(|job| job.name.as_deref() == Some(name));
        if is_active(new.name()) || status.last_schedule_time.is_some_and(|last| last.0 == at) {
            return Ok(());
        }
        let policy = cron.spec.concurrency_policy.clone().unwrap_or_default();
        if policy == "Forbid" && !active.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            recorder.event(cron, EventType::Normal, "JobAlreadyActive", message);
            return Ok(());
        }
        if policy == "Replace" {
            for job in jobs.iter().filter(|job| is_active(job.name())) {
                self.delete(cron, job).await?;
            }
        }
        let Some(job) = self.create(cron, &new).await? else { return Ok(()) };
        let status = cron.status.get_or_insert_default();
        status.active.get_or_insert_default().push(reference(&job));
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }

    /// The Job that was created, now or by an earlier try; nothing when that is somebody else's.
    async fn create(&self, cron: &CronJob, new: &Job) -> Result<Option<Job>, ClientError> {
        let recorder = &self.context.recorder;
        match self.context.client.create(new).await {
            Ok(job) => {
                let message = format!("Created job {}", job.name());
                recorder.event(cron, EventType::Normal, "SuccessfulCreate", message);
                Ok(Some(job))
            }
            Err(error) if error.is_already_exists() => {
                let found: Option<Job> = self.context.client.get_opt(new.namespace(), new.name()).await?;
                let ours = |job: &Job| controller_of(&job.metadata).is_some_and(|owner| owner.uid == cron.uid());
                Ok(found.filter(ours))
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    recorder.event(cron, EventType::Warning, "FailedCreate", format!("Error creating job: {error}"));
                }
                Err(error)
            }
        }
    }

    /// Brings the list of active Jobs up to date.
    async fn note_finished(&self, cron: &mut CronJob, jobs: &[Arc<Job>]) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        let is_listed = |cron: &CronJob, uid: &str| {
            let active = cron.status.iter().flat_map(|status| status.active.iter().flatten());
            active.into_iter().any(|known| known.uid.as_deref() == Some(uid))
        };
        for job in jobs {
            let listed = is_listed(cron, job.uid());
            if finished_at(job).is_none() {
                if !listed {
                    // The cache may not show yet what was written of it.
                    let fresh: CronJob = self.context.client.get(cron.namespace(), cron.name()).await?;
                    if is_listed(&fresh, job.uid()) {
                        *cron = fresh;
                        continue;
                    }
                    let message = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                    recorder.event(cron, EventType::Warning, "UnexpectedJob", message);
                }
                continue;
            }
            let well = plan::has_succeeded(job);
            if listed {
                forget(cron, job.uid());
                let condition = if well { "Complete" } else { "Failed" };
                let message = format!("Saw completed job: {}, condition: {condition}", job.name());
                recorder.event(cron, EventType::Normal, "SawCompletedJob", message);
            }
            let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
            let status = cron.status.get_or_insert_default();
            if well && completed > status.last_successful_time {
                status.last_successful_time = completed;
            }
        }
        self.drop_missing(cron, jobs).await
    }

    /// Takes Jobs that are gone off the list.
    async fn drop_missing(&self, cron: &mut CronJob, jobs: &[Arc<Job>]) -> Result<(), ClientError> {
        let active = cron.status.as_ref().and_then(|status| status.active.clone()).unwrap_or_default();
        for known in active {
            let uid = known.uid.unwrap_or_default();
            let name = known.name.unwrap_or_default();
            if jobs.iter().any(|job| job.uid() == uid) {
                continue;
            }
            if self.context.client.get_opt::<Job>(cron.namespace(), &name).await?.is_none() {
                let message = format!("Active job went missing: {name}");
                self.context.recorder.event(cron, EventType::Normal, "MissingJob", message);
                forget(cron, &uid);
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &mut CronJob, job: &Job) -> Result<(), ClientError> {
        let mut options = DeleteOptions::of_uid(job.uid());
        options.propagation_policy = Some(Propagation::Background);
        match self.context.client.delete::<Job>(job.namespace(), job.name(), &options).await {
            Ok(()) => {
                forget(cron, job.uid());
                let message = format!("Deleted job {}", job.name());
                self.context.recorder.event(cron, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Takes a Job off the list of active ones.
fn forget(cron: &mut CronJob, uid: &str) {
    let status = cron.status.get_or_insert_default();
    let mut active = status.active.take().unwrap_or_default();
    active.retain(|known| known.uid.as_deref() != Some(uid));
    status.active = (!active.is_empty()).then_some(active);
}
