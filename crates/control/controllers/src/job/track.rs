//! Counts pods that ended exactly once: written down by uid first, then let go, then added to the totals.
//!
//! A pod keeps its finalizer until its end is in the Job's status, so none is lost however it goes; source:
//! KEP-2307.

use super::indexes;
use super::plan::{View, completed_indexes, index_of};
use crate::context::Context;
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::batch::v1::{Job, JobStatus, UncountedTerminatedPods};
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::json;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Pods that were let go, until the cache shows it: to look at them again would count them twice.
#[derive(Default)]
pub struct Released(Mutex<HashSet<String>>);

impl Released {
    /// Whether the pod is held, as far as is known.
    pub fn holds(&self, pod: &Pod) -> bool {
        is_tracked(pod) && !self.0.lock().contains(pod.uid())
    }

    /// Takes in what the cache shows of a pod now.
    pub fn seen(&self, pod: &Pod, gone: bool) {
        if gone || !is_tracked(pod) {
            self.0.lock().remove(pod.uid());
        }
    }

    /// Lets a pod go.
    pub async fn untrack(&self, context: &Context, pod: Arc<Pod>) -> Result<(), ClientError> {
        self.0.lock().insert(pod.uid().to_owned());
        let result = untrack(context, &pod).await;
        if result.is_err() {
            self.0.lock().remove(pod.uid());
        }
        result
    }
}

/// What pods ended and are not in the totals yet.
#[derive(Debug, Default)]
pub struct Uncounted {
    pub succeeded: BTreeSet<String>,
    pub failed: BTreeSet<String>,
    /// Some of them are not even written down.
    pub fresh: bool,
}

impl Uncounted {
    /// Adds up what was written down and what is seen now. Pods of a finished Job that still run count as failed.
    pub fn of(view: &View, status: &JobStatus, held: &[Arc<Pod>], over: bool) -> Self {
        let written = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let set = |uids: Option<Vec<String>>| uids.into_iter().flatten().collect::<BTreeSet<String>>();
        let mut uncounted = Self { succeeded: set(written.succeeded), failed: set(written.failed), fresh: false };
        let completed = completed_indexes(status);
        for pod in held {
            let uid = pod.uid().to_owned();
            if uncounted.succeeded.contains(&uid) || uncounted.failed.contains(&uid) {
                continue;
            }
            if pods::phase(pod) == "Succeeded" {
                let index = index_of(pod).filter(|_| view.indexed);
                if view.indexed && index.is_none_or(|index| completed.contains(&index)) {
                    continue;
                }
                uncounted.fresh |= uncounted.succeeded.insert(uid);
            } else if view.is_failed(pod) || (over && pod.is_deleting()) {
                uncounted.fresh |= uncounted.failed.insert(uid);
            }
        }
        uncounted
    }

    /// The form in which the status carries it.
    pub fn written(&self) -> UncountedTerminatedPods {
        let list = |uids: &BTreeSet<String>| (!uids.is_empty()).then(|| uids.iter().cloned().collect());
        UncountedTerminatedPods { succeeded: list(&self.succeeded), failed: list(&self.failed) }
    }
}

/// The pods that the notes allow to go.
pub fn noted(held: &[Arc<Pod>], uncounted: &Uncounted) -> Vec<Arc<Pod>> {
    let is_noted = |pod: &&Arc<Pod>| uncounted.succeeded.contains(pod.uid()) || uncounted.failed.contains(pod.uid());
    held.iter().filter(|pod| is_noted(pod) || pods::is_finished(pod)).cloned().collect()
}

/// Moves what ended, and was let go, into the totals of a status.
pub fn count(view: &View, status: &mut JobStatus, owned: &[Arc<Pod>], uncounted: &Uncounted) {
    let add = |total: &mut Option<i32>, more: usize| {
        let sum = total.unwrap_or_default().saturating_add(super::plan::number(more));
        *total = (sum > 0).then_some(sum);
    };
    if view.indexed {
        let mut completed = completed_indexes(status);
        let succeeded = owned.iter().filter(|pod| uncounted.succeeded.contains(pod.uid()));
        completed.extend(succeeded.filter_map(|pod| index_of(pod)));
        completed.retain(|index| *index < view.completions.unwrap_or_default());
        status.succeeded = (!completed.is_empty()).then(|| super::plan::number(completed.len()));
        status.completed_indexes = (!completed.is_empty()).then(|| indexes::format(&completed));
    } else {
        add(&mut status.succeeded, uncounted.succeeded.len());
    }
    add(&mut status.failed, uncounted.failed.len());
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
}

async fn untrack(context: &Context, pod: &Pod) -> Result<(), ClientError> {
    let patch = json!({ "metadata": { "uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER] } });
    let (client, options) = (&context.client, PatchOptions::default());
    match client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// The features of a Job that can't be honoured yet.
pub fn unsupported(job: &Job) -> Option<&'static str> {
    let spec = job.spec.as_ref()?;
    [
        (spec.pod_failure_policy.is_some(), "podFailurePolicy"),
        (spec.backoff_limit_per_index.is_some(), "backoffLimitPerIndex"),
        (spec.success_policy.is_some(), "successPolicy"),
    ]
    .into_iter()
    .find_map(|(asked, name)| asked.then_some(name))
}
