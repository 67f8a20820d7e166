//! Watches Jobs and their pods, and does what the plan says.

use super::plan::{self, COMPLETE, End, FAILED, FAILURE_TARGET, SUCCESS_MET, SUSPENDED, Scaling, View};
use super::track::{FINALIZER, Released, Uncounted, count, noted, unsupported};
use crate::batches;
use crate::context::Context;
use crate::expectations::Expectations;
use crate::ownership::{BY_CONTROLLER, controller_ref, index_by_owner, owner_key, pod_of};
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions};
use pintle_clock::Timestamp;
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::batch::v1::{Job, JobStatus};
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::{Kind, ObjectKey, Time};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 5;

struct Controller {
    context: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    queue: Queue<ObjectKey>,
    expectations: Expectations,
    released: Released,
    /// Failures in a row since a success, and when the last was.
    failures: Mutex<HashMap<ObjectKey, (u32, Timestamp)>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        jobs: context.informers.of(),
        pods: context.informers.of(),
        queue: Queue::new(),
        expectations: Expectations::default(),
        released: Released::default(),
        failures: Mutex::default(),
        context: context.clone(),
    });
    index_by_owner(&controller.pods);
    let queue = controller.queue.clone();
    controller.jobs.on_change(move |change| queue.add(change.object().key()));
    let hearing = Arc::downgrade(&controller);
    controller.pods.on_change(move |change| {
        if let Some(controller) = hearing.upgrade() {
            controller.pod_changed(change);
        }
    });
    controller.jobs.synced().await;
    controller.pods.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("job-controller", controller.queue.clone(), WORKERS, reconcile, context.stop).await;
}

/// A Job in the middle of a reconcile.
struct Pass<'a> {
    job: Job,
    view: View,
    owned: &'a [Arc<Pod>],
    active: Vec<Arc<Pod>>,
    status: JobStatus,
    now: Timestamp,
}

impl Controller {
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        self.released.seen(pod, change.new().is_none());
        let Some(key) = owner_key::<Job>(&pod.metadata) else { return };
        match change {
            Change::Added(_) if !pod.is_deleting() => self.expectations.created(&key),
            Change::Modified(..) if !pod.is_deleting() => (),
            _ => self.expectations.deleted(&key, pod.uid()),
        }
        self.queue.add(key);
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(job) = self.jobs.get(&key) else {
            self.expectations.forget(&key);
            self.failures.lock().remove(&key);
            return self.let_orphans_go(&key).await;
        };
        let elsewhere = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if elsewhere.is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(Outcome::Done);
        }
        let owned = self.pods.by_index(BY_CONTROLLER, job.uid());
        if plan::finished_at(&job).is_some() || job.is_deleting() {
            // Nothing is counted any more; what is still held must not be held for ever.
            return self.let_go(owned.into_iter().filter(|pod| self.released.holds(pod)).collect()).await;
        }
        if let Some(feature) = unsupported(&job) {
            let message = format!("spec.{feature} is not supported; the job is left alone");
            self.context.recorder.event(&*job, EventType::Warning, "NotSupported", message);
            return Ok(Outcome::Done);
        }
        let now = self.context.now();
        let view = View::of(&job.spec.clone().unwrap_or_default());
        let is_active = |pod: &&Arc<Pod>| pods::is_active(pod);
        let active = owned.iter().filter(is_active).cloned().collect();
        let status = job.status.clone().unwrap_or_default();
        let pass = Pass { job: Job::clone(&job), view, owned: &owned, active, status, now };
        self.sync(&key, pass).await
    }

    /// Pods whose Job is gone are held by nobody.
    async fn let_orphans_go(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let is_orphan =
            |pod: &Arc<Pod>| self.released.holds(pod) && owner_key::<Job>(&pod.metadata).as_ref() == Some(key);
        self.let_go(self.pods.in_namespace(&key.namespace).into_iter().filter(is_orphan).collect()).await
    }

    async fn let_go(&self, pods: Vec<Arc<Pod>>) -> Result<Outcome, ClientError> {
        batches::all(pods, |pod| self.released.untrack(&self.context, pod)).await?;
        Ok(Outcome::Done)
    }

    async fn sync(&self, key: &ObjectKey, mut pass: Pass<'_>) -> Result<Outcome, ClientError> {
        self.tell_suspension(&mut pass);
        let decided = plan::decided(&pass.job);
        let held: Vec<Arc<Pod>> = pass.owned.iter().filter(|pod| self.released.holds(pod)).cloned().collect();
        let uncounted = Uncounted::of(&pass.view, &pass.status, &held, decided.is_some());
        let total = |counted: Option<i32>, more: usize| counted.unwrap_or_default() + plan::number(more);
        let succeeded = total(pass.status.succeeded, uncounted.succeeded.len());
        let failed = total(pass.status.failed, uncounted.failed.len());
        self.note_failures(key, &pass, &uncounted);
        let start = pass.status.start_time.as_ref().map(|time| time.0);
        let end = decided.or_else(|| plan::end(&pass.view, &pass.active, succeeded, failed, start, pass.now));
        if uncounted.fresh || end.is_some() {
            pass.status.uncounted_terminated_pods = Some(uncounted.written());
        }
        pass.status.uncounted_terminated_pods.get_or_insert_default();
        if let Some(end) = &end {
            let type_ = if end.succeeded { SUCCESS_MET } else { FAILURE_TARGET };
            plan::set_condition(&mut pass.status, type_, "True", &end.reason, &end.message, pass.now);
        }
        self.write(&mut pass).await?;
        if !uncounted.succeeded.is_empty() || !uncounted.failed.is_empty() {
            self.let_go(noted(&held, &uncounted)).await?;
            count(&pass.view, &mut pass.status, pass.owned, &uncounted);
        }
        match end {
            Some(end) => self.finish(key, pass, end).await,
            None => self.scale(key, pass, succeeded).await,
        }
    }

    /// Starts the clock of a Job that runs, and stops it for one that is suspended.
    fn tell_suspension(&self, pass: &mut Pass<'_>) {
        let was = plan::condition(&pass.job, SUSPENDED).is_some();
        let recorder = &self.context.recorder;
        if pass.view.suspended && !was {
            plan::set_condition(&mut pass.status, SUSPENDED, "True", "JobSuspended", "Job suspended", pass.now);
            pass.status.start_time = None;
            recorder.event(&pass.job, EventType::Normal, "Suspended", "Job suspended");
        } else if !pass.view.suspended && was {
            plan::set_condition(&mut pass.status, SUSPENDED, "False", "JobResumed", "Job resumed", pass.now);
            pass.status.start_time = Some(Time(pass.now));
            recorder.event(&pass.job, EventType::Normal, "Resumed", "Job resumed");
        } else if !pass.view.suspended && pass.status.start_time.is_none() {
            pass.status.start_time = Some(Time(pass.now));
        }
    }

    fn note_failures(&self, key: &ObjectKey, pass: &Pass<'_>, uncounted: &Uncounted) {
        let mut failures = self.failures.lock();
        let entry = failures.entry(key.clone()).or_insert((0, pass.now));
        let written = pass.status.uncounted_terminated_pods.as_ref().and_then(|pods| pods.failed.clone());
        let known = written.unwrap_or_default();
        let new = uncounted.failed.iter().filter(|uid| !known.contains(uid)).count();
        if !uncounted.succeeded.is_empty() {
            entry.0 = 0;
        }
        if new > 0 {
            let failed = pass.owned.iter().filter(|pod| uncounted.failed.contains(pod.uid()));
            let last = failed.filter_map(|pod| plan::ended_at(pod)).max().unwrap_or(pass.now);
            *entry = (entry.0.saturating_add(u32::try_from(new).unwrap_or(u32::MAX)), last);
        }
    }

    /// Ends the pods that are left, and the Job when none is.
    async fn finish(&self, key: &ObjectKey, mut pass: Pass<'_>, end: End) -> Result<Outcome, ClientError> {
        batches::all(pass.active.clone(), |pod| self.delete(&pass.job, pod)).await?;
        let left = pass.owned.iter().filter(|pod| !pods::is_finished(pod) && self.released.holds(pod)).count();
        let terminating = pass.owned.iter().filter(|pod| pods::is_terminating(pod)).count();
        self.set_counts(&mut pass);
        if left + terminating > 0 {
            self.write(&mut pass).await?;
            return Ok(Outcome::Done);
        }
        let type_ = if end.succeeded { COMPLETE } else { FAILED };
        plan::set_condition(&mut pass.status, type_, "True", &end.reason, &end.message, pass.now);
        if end.succeeded {
            pass.status.completion_time = Some(Time(pass.now));
        }
        self.write(&mut pass).await?;
        self.failures.lock().remove(key);
        let recorder = &self.context.recorder;
        if end.succeeded {
            recorder.event(&pass.job, EventType::Normal, "Completed", "Job completed");
        } else {
            recorder.event(&pass.job, EventType::Warning, &end.reason, end.message);
        }
        Ok(Outcome::Done)
    }

    async fn scale(&self, key: &ObjectKey, mut pass: Pass<'_>, succeeded: i32) -> Result<Outcome, ClientError> {
        self.set_counts(&mut pass);
        let mut outcome = Outcome::Done;
        let mut result = Ok(());
        if self.expectations.satisfied(key) {
            let terminating = pass.owned.iter().filter(|pod| pods::is_terminating(pod)).count();
            let completed = plan::completed_indexes(&pass.status);
            let scaling = plan::scale(&pass.view, &pass.active, terminating, succeeded, &completed, pass.now);
            result = match scaling {
                Scaling::Nothing => Ok(()),
                Scaling::Delete(pods) => self.shrink(key, &pass.job, pods).await,
                Scaling::Create(indexes) => {
                    let (failures, last) = self.failures.lock().get(key).copied().unwrap_or((0, pass.now));
                    let wait = plan::backoff(failures, last, pass.now);
                    if wait.is_zero() {
                        self.create(key, &pass.job, indexes).await
                    } else {
                        outcome = Outcome::After(wait);
                        Ok(())
                    }
                }
            };
        }
        self.write(&mut pass).await?;
        result?;
        Ok(sooner(outcome, deadline(&pass)))
    }

    fn set_counts(&self, pass: &mut Pass<'_>) {
        let terminating = pass.owned.iter().filter(|pod| pods::is_terminating(pod)).count();
        let ready = pass.active.iter().filter(|pod| pods::is_ready(pod)).count();
        pass.status.active = (!pass.active.is_empty()).then(|| plan::number(pass.active.len()));
        pass.status.ready = Some(plan::number(ready));
        pass.status.terminating = Some(plan::number(terminating));
    }

    async fn create(&self, key: &ObjectKey, job: &Job, indexes: Vec<Option<i32>>) -> Result<(), ClientError> {
        self.expectations.expect_creations(key, indexes.len());
        let (created, error) = batches::slow_start(indexes.len(), |i| self.create_one(job, indexes[i])).await;
        self.expectations.created_many(key, indexes.len() - created);
        match error {
            Some(error) if !error.is_namespace_terminating() => Err(error),
            _ => Ok(()),
        }
    }

    async fn create_one(&self, job: &Job, index: Option<i32>) -> Result<(), ClientError> {
        let Some(spec) = &job.spec else { return Ok(()) };
        let (namespace, owner) = (job.namespace(), controller_ref(job));
        let mut pod = match index {
            None => pod_of(&spec.template, namespace, job.name(), owner),
            Some(index) => {
                let template = plan::indexed_template(&spec.template, job.name(), index);
                pod_of(&template, namespace, &format!("{}-{index}", job.name()), owner)
            }
        };
        pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
        let recorder = &self.context.recorder;
        match self.context.client.create(&pod).await {
            Ok(pod) => {
                recorder.event(job, EventType::Normal, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                Ok(())
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    recorder.event(job, EventType::Warning, "FailedCreate", format!("Error creating: {error}"));
                }
                Err(error)
            }
        }
    }

    /// Deletes pods that are too many; they count neither as failed nor as succeeded.
    async fn shrink(&self, key: &ObjectKey, job: &Job, pods: Vec<Arc<Pod>>) -> Result<(), ClientError> {
        self.expectations.expect_deletions(key, pods.iter().map(|pod| pod.uid().to_owned()));
        let result = batches::all(pods, |pod| self.shrink_by(job, pod)).await;
        if result.is_err() {
            self.expectations.forget(key);
        }
        result
    }

    async fn shrink_by(&self, job: &Job, pod: Arc<Pod>) -> Result<(), ClientError> {
        self.released.untrack(&self.context, pod.clone()).await?;
        self.delete(job, pod).await
    }

    async fn delete(&self, job: &Job, pod: Arc<Pod>) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        match self.context.client.delete::<Pod>(pod.namespace(), pod.name(), &DeleteOptions::of_uid(pod.uid())).await {
            Ok(()) => {
                recorder.event(job, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                recorder.event(job, EventType::Warning, "FailedDelete", format!("Error deleting: {error}"));
                Err(error)
            }
        }
    }

    async fn write(&self, pass: &mut Pass<'_>) -> Result<(), ClientError> {
        if pass.job.status.as_ref() == Some(&pass.status) {
            return Ok(());
        }
        pass.job.status = Some(pass.status.clone());
        match self.context.client.update_status(&pass.job).await {
            Ok(job) => {
                pass.status = job.status.clone().unwrap_or_default();
                pass.job = job;
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// When the Job's deadline is over.
fn deadline(pass: &Pass<'_>) -> Option<Duration> {
    let start = pass.status.start_time.as_ref()?.0;
    let left = pass.view.active_deadline? - crate::context::seconds_between(start, pass.now);
    (!pass.view.suspended).then(|| Duration::from_secs(u64::try_from(left).unwrap_or_default().max(1)))
}

fn sooner(outcome: Outcome, other: Option<Duration>) -> Outcome {
    match (outcome, other) {
        (Outcome::After(one), Some(other)) => Outcome::After(one.min(other)),
        (Outcome::Done, Some(other)) => Outcome::After(other),
        (outcome, None) => outcome,
    }
}
