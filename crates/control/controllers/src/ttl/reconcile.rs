//! Watches Jobs, and waits for each that is finished until its time is over.

use crate::context::{Context, seconds_between};
use crate::job::finished_at;
use pintle_client::{ClientError, DeleteOptions, Propagation, unless_missing};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::batch::v1::Job;
use pintle_types::{Kind, ObjectKey};
use std::time::Duration;

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let jobs = context.informers.of::<Job>();
    let queue: Queue<ObjectKey> = Queue::new();
    let from_jobs = queue.clone();
    jobs.on_change(move |change| {
        if change.new().is_some_and(|job| seconds_to_live(job, job_now()).is_some()) {
            from_jobs.add(change.object().key());
        }
    });
    jobs.synced().await;
    let reconcile = |key| reconcile(&context, &jobs, key);
    run_reconciler("ttl-after-finished-controller", queue, 2, reconcile, context.stop.clone()).await;
}

/// Any time does for asking whether a Job has an end at all.
fn job_now() -> pintle_clock::Timestamp {
    pintle_clock::Timestamp::UNIX_EPOCH
}

/// The seconds that a finished Job has left; nothing for one that may stay, or that is going already.
fn seconds_to_live(job: &Job, now: pintle_clock::Timestamp) -> Option<i64> {
    let ttl = i64::from(job.spec.as_ref()?.ttl_seconds_after_finished?);
    (!job.is_deleting()).then_some(())?;
    Some(ttl - seconds_between(finished_at(job)?, now))
}

async fn reconcile(context: &Context, jobs: &Informer<Job>, key: ObjectKey) -> Result<Outcome, ClientError> {
    let left = |job: &Job| seconds_to_live(job, context.now());
    let Some(seconds) = jobs.get(&key).and_then(|job| left(&job)) else { return Ok(Outcome::Done) };
    if let Ok(seconds @ 1..) = u64::try_from(seconds) {
        return Ok(Outcome::After(Duration::from_secs(seconds)));
    }
    // The cache may be behind somebody who just gave the Job more time.
    let Some(fresh) = context.client.get_opt::<Job>(&key.namespace, &key.name).await? else { return Ok(Outcome::Done) };
    if left(&fresh).is_none_or(|seconds| seconds > 0) {
        return Ok(Outcome::Done);
    }
    let mut options = DeleteOptions::of_uid(fresh.uid());
    options.propagation_policy = Some(Propagation::Foreground);
    options.preconditions.resource_version = fresh.metadata.resource_version.clone();
    unless_missing(context.client.delete::<Job>(&key.namespace, &key.name, &options).await)?;
    Ok(Outcome::Done)
}
