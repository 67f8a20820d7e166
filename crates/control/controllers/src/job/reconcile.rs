//! Watches Jobs and their pods, and does what the plan says.

use super::backoff::Failures;
use super::plan::{
    self, COMPLETE, COMPLETIONS_REACHED, End, FAILED, FAILURE_TARGET, NewPod, SUCCESS_MET, SUSPENDED, Scaling, Seen,
    View,
};
use super::track::{Ended, FINALIZER, Notes, Released};
use crate::batches;
use crate::claim::claim_held_pods;
use crate::context::Context;
use crate::owners::Owners;
use crate::ownership::{controller_ref, labels_of, owner_key, pod_of};
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions, unless_missing};
use pintle_clock::Timestamp;
use pintle_informer::{EventType, Outcome};
use pintle_types::k8s::api::batch::v1::{Job, JobStatus};
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey, Time};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 5;

struct Controller {
    context: Context,
    owners: Arc<Owners<Job>>,
    released: Arc<Released>,
    /// Of the Jobs with failures since the last success.
    failures: Mutex<HashMap<ObjectKey, Failures>>,
    /// The versions that its own last writes made: a Job that is older has not heard of pods that it let go of, and would
    /// make them again.
    written: Mutex<HashMap<ObjectKey, u64>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let owners = Owners::watch(&context, |job: &Job, pod| {
        selector_of(job).is_some_and(|selector| selector.matches(labels_of(&pod.metadata)))
    });
    let released = Arc::new(Released::default());
    let hearing = released.clone();
    owners.pods.on_change(move |change| hearing.seen(change.object(), change.new().is_none()));
    let controller = Controller {
        owners: owners.clone(),
        released,
        failures: Mutex::default(),
        written: Mutex::default(),
        context: context.clone(),
    };
    owners.run("job-controller", WORKERS, |key| controller.reconcile(key), context.stop).await;
}

/// A Job in the middle of a reconcile.
struct Pass {
    job: Job,
    view: View,
    seen: Seen,
    status: JobStatus,
    now: Timestamp,
    /// All that was asked for has been seen.
    may_scale: bool,
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(job) = self.owners.objects.get(&key) else {
            self.owners.expectations.forget(&key);
            self.failures.lock().remove(&key);
            self.written.lock().remove(&key);
            return self.let_orphans_go(&key).await;
        };
        if self.written.lock().get(&key).is_some_and(|written| job.version() < *written) {
            // The change that brings the newer one is an event of its own.
            return Ok(Outcome::Done);
        }
        let elsewhere = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if elsewhere.is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(Outcome::Done);
        }
        let may_scale = match selector_of(&job) {
            Some(selector) => self.owners.settled(&self.context, &job, &selector).await?,
            None => self.owners.has_seen_all(key.clone()),
        };
        let owned = self.owners.pods_of(&job);
        if plan::finished_at(&job).is_some() || job.is_deleting() {
            // Nothing is counted any more; what is still held must not be held for ever.
            return self.let_go(owned.into_iter().filter(|pod| self.released.holds(pod)).collect()).await;
        }
        let owned = match selector_of(&job) {
            None => owned,
            Some(selector) => {
                let mut orphans = self.owners.orphans_near(&job);
                orphans.retain(|pod| pods::is_active(pod));
                claim_held_pods(&self.context, &*job, &selector, owned, orphans, Some(FINALIZER)).await?
            }
        };
        self.sync(&key, Job::clone(&job), owned, may_scale).await
    }

    /// Pods whose Job is gone are held by nobody.
    async fn let_orphans_go(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let is_orphan =
            |pod: &Arc<Pod>| self.released.holds(pod) && owner_key::<Job>(&pod.metadata).as_ref() == Some(key);
        self.let_go(self.owners.pods.in_namespace(&key.namespace).into_iter().filter(is_orphan).collect()).await
    }

    async fn let_go(&self, pods: Vec<Arc<Pod>>) -> Result<Outcome, ClientError> {
        batches::all(pods, |pod| self.released.untrack(&self.context, pod)).await?;
        Ok(Outcome::Done)
    }

    async fn sync(
        &self,
        key: &ObjectKey,
        job: Job,
        owned: Vec<Arc<Pod>>,
        may_scale: bool,
    ) -> Result<Outcome, ClientError> {
        let view = View::of(&job.spec.clone().unwrap_or_default());
        let (status, now) = (job.status.clone().unwrap_or_default(), self.context.now());
        let held: Vec<Arc<Pod>> = owned.iter().filter(|pod| self.released.holds(pod)).cloned().collect();
        let ended = Ended::of(&view, &status, &held);
        let known = self.failures.lock().get(key).copied().unwrap_or_default();
        let failures = known.after(&ended.succeeded, &ended.failed);
        let decided = plan::decided(&job);
        let over = decided.is_some();
        let seen = Seen::of(&view, &status, owned, &ended, over);
        let mut pass = Pass { job, view, seen, status, now, may_scale };
        if !over {
            self.tell_suspension(&mut pass);
        }
        let start = pass.status.start_time.as_ref().map(|time| time.0);
        let end = decided.or_else(|| plan::end(&pass.view, &pass.seen, start, now));
        let delayed = if end.is_none() { pass.view.delayed(&pass.seen) } else { BTreeMap::new() };
        let notes = Notes::of(&pass.view, &pass.status, &held, over, &delayed);
        self.note(&mut pass, &notes, end.as_ref()).await?;
        if failures != known {
            self.failures.lock().insert(key.clone(), failures);
        }
        match end {
            _ if notes.more => Ok(Outcome::After(Duration::from_millis(1))),
            Some(end) => self.finish(key, pass, end).await,
            None => self.scale(key, pass, failures, &delayed).await,
        }
    }

    /// Writes down what ended before it lets go of it, and then adds it to the totals.
    async fn note(&self, pass: &mut Pass, notes: &Notes, end: Option<&End>) -> Result<(), ClientError> {
        pass.status.uncounted_terminated_pods = Some(notes.written());
        pass.seen.tell_indexes(&pass.view, &mut pass.status);
        if let Some(end) = end {
            let type_ = if end.succeeded { SUCCESS_MET } else { FAILURE_TARGET };
            plan::set_condition(&mut pass.status, type_, "True", &end.reason, &end.message, pass.now);
        }
        let pending = !notes.succeeded.is_empty() || !notes.failed.is_empty() || !notes.release.is_empty();
        if end.is_some() || pending {
            self.write(pass).await?;
        }
        if pending {
            self.let_go(notes.release.clone()).await?;
            notes.count(&mut pass.status);
        }
        Ok(())
    }

    /// Starts the clock of a Job that runs, and stops it for one that is suspended.
    fn tell_suspension(&self, pass: &mut Pass) {
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

    /// Ends the pods that are left, and the Job when none is.
    async fn finish(&self, key: &ObjectKey, mut pass: Pass, end: End) -> Result<Outcome, ClientError> {
        let active = std::mem::take(&mut pass.seen.active);
        let ending = !active.is_empty();
        if end.reason == COMPLETIONS_REACHED && !active.is_empty() {
            // What is too many when all is done has not failed.
            self.shrink(key, &pass.job, active).await?;
        } else {
            batches::all(active, |pod| self.delete(&pass.job, pod)).await?;
        }
        let left = pass.seen.owned.iter().filter(|pod| !pods::is_finished(pod) && self.released.holds(pod)).count();
        set_counts(&mut pass);
        if left > 0 || ending || !pass.seen.terminating.is_empty() {
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

    async fn scale(
        &self,
        key: &ObjectKey,
        mut pass: Pass,
        failures: Failures,
        delayed: &BTreeMap<i32, Arc<Pod>>,
    ) -> Result<Outcome, ClientError> {
        let (mut outcome, mut result, mut created) = (Outcome::Done, Ok(()), 0);
        if pass.may_scale {
            match plan::scale(&pass.view, &pass.seen, failures, delayed, pass.now) {
                Scaling::Nothing => (),
                Scaling::Delete(pods) => {
                    pass.seen.active.retain(|pod| !pods.iter().any(|gone| gone.uid() == pod.uid()));
                    result = self.shrink(key, &pass.job, pods).await;
                }
                Scaling::Create(pods) => (created, result) = self.create(key, &pass, pods).await,
                Scaling::Wait(wait) => outcome = Outcome::After(wait),
            }
        }
        set_counts(&mut pass);
        let active = plan::number(pass.seen.active.len() + created);
        pass.status.active = (active > 0).then_some(active);
        self.write(&mut pass).await?;
        result?;
        Ok(sooner(outcome, deadline(&pass)))
    }

    /// Returns how many pods there are more, also when one of them failed.
    async fn create(&self, key: &ObjectKey, pass: &Pass, new: Vec<NewPod>) -> (usize, Result<(), ClientError>) {
        self.owners.expectations.expect_creations(key, new.len());
        let (created, error) = self.owners.create(key, new.len(), |i| self.create_one(pass, &new[i])).await;
        let error = error.filter(|error| !error.is_namespace_terminating());
        (created, error.map_or(Ok(()), Err))
    }

    async fn create_one(&self, pass: &Pass, new: &NewPod) -> Result<(), ClientError> {
        let job = &pass.job;
        let Some(spec) = &job.spec else { return Ok(()) };
        let (namespace, owner) = (job.namespace(), controller_ref(job));
        let mut pod = match new.index {
            None => pod_of(&spec.template, namespace, job.name(), owner),
            Some(index) => {
                let template = plan::indexed_template(&spec.template, job.name(), index);
                pod_of(&template, namespace, &plan::indexed_prefix(job.name(), index), owner)
            }
        };
        plan::carry_failures(&pass.view, &mut pod.metadata, new.replaces.as_deref());
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
        self.owners.expectations.expect_deletions(key, pods.iter().map(|pod| pod.uid().to_owned()));
        let result = batches::all(pods, |pod| self.shrink_by(job, pod)).await;
        if result.is_err() {
            self.owners.expectations.forget(key);
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

    async fn write(&self, pass: &mut Pass) -> Result<(), ClientError> {
        if pass.job.status.as_ref() == Some(&pass.status) {
            return Ok(());
        }
        pass.job.status = Some(pass.status.clone());
        if let Some(job) = unless_missing(self.context.client.update_status(&pass.job).await)? {
            self.written.lock().insert(job.key(), job.version());
            pass.status = job.status.clone().unwrap_or_default();
            pass.job = job;
        }
        Ok(())
    }
}

fn selector_of(job: &Job) -> Option<LabelSelector> {
    let selector = job.spec.as_ref()?.selector.as_ref()?;
    Some(LabelSelector::from_typed(Some(selector)))
}

fn set_counts(pass: &mut Pass) {
    let (seen, status) = (&pass.seen, &mut pass.status);
    let ready = seen.active.iter().filter(|pod| pods::is_ready(pod)).count();
    status.active = (!seen.active.is_empty()).then(|| plan::number(seen.active.len()));
    status.ready = Some(plan::number(ready));
    status.terminating = Some(plan::number(seen.terminating.len()));
}

/// When the Job's deadline is over.
fn deadline(pass: &Pass) -> Option<Duration> {
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
