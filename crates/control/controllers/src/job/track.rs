//! Counts pods that ended exactly once: written down by uid first, then let go, then added to the totals.
//!
//! A pod keeps its finalizer until its end is in the Job's status, so none is lost however it goes; source:
//! KEP-2307.

use super::plan::View;
use super::policy::Verdict;
use crate::context::Context;
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::batch::v1::{JobStatus, UncountedTerminatedPods};
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashSet};
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

/// Pods noted in one go at most, for the sake of the status's size.
const MOST_NOTES: usize = 500;

/// Pods that ended and that the status says nothing of yet.
#[derive(Debug, Default)]
pub struct Ended {
    pub succeeded: Vec<Arc<Pod>>,
    pub failed: Vec<Arc<Pod>>,
}

impl Ended {
    /// Looks for them among the pods that are held.
    pub fn of(view: &View, status: &JobStatus, held: &[Arc<Pod>]) -> Self {
        let written = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let is_in = |uids: &Option<Vec<String>>, pod: &Pod| uids.iter().flatten().any(|uid| uid == pod.uid());
        let mut ended = Self::default();
        for pod in held.iter().filter(|pod| !view.indexed || view.valid_index(pod).is_some()) {
            if pods::phase(pod) == "Succeeded" {
                if !is_in(&written.succeeded, pod) {
                    ended.succeeded.push(pod.clone());
                }
            } else if view.is_failed(pod) && !is_in(&written.failed, pod) {
                ended.failed.push(pod.clone());
            }
        }
        ended
    }
}

/// The notes of a status: pods that ended and are not in the totals yet.
#[derive(Debug, Default)]
pub struct Notes {
    pub succeeded: BTreeSet<String>,
    pub failed: BTreeSet<String>,
    /// Pods that may go once the notes are written.
    pub release: Vec<Arc<Pod>>,
    /// There is more than is noted in one go.
    pub more: bool,
}

impl Notes {
    /// Adds what is seen now to what was written down. Pods of a Job that is `over` count as failed when they are
    /// deleted; those in `delayed` are held on to until then.
    pub fn of(
        view: &View,
        status: &JobStatus,
        held: &[Arc<Pod>],
        over: bool,
        delayed: &BTreeMap<i32, Arc<Pod>>,
    ) -> Self {
        let written = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let set = |uids: Option<Vec<String>>| uids.into_iter().flatten().collect::<BTreeSet<String>>();
        let mut notes = Self { succeeded: set(written.succeeded), failed: set(written.failed), ..Self::default() };
        for pod in held {
            let is_delayed = || delayed.values().any(|last| last.uid() == pod.uid());
            let has_succeeded = pods::phase(pod) == "Succeeded" && !notes.failed.contains(pod.uid());
            let has_failed = view.is_failed(pod) || (over && pod.is_deleting()) || notes.failed.contains(pod.uid());
            if !has_succeeded && (!has_failed || (!over && is_delayed())) {
                continue;
            }
            notes.release.push(pod.clone());
            // Completed indexes are in the status themselves; a uid is needed for what is only counted.
            if has_succeeded && !view.indexed {
                notes.succeeded.insert(pod.uid().to_owned());
            } else if !has_succeeded
                && (!view.indexed || view.valid_index(pod).is_some())
                && view.judge(pod) != Verdict::Ignore
            {
                notes.failed.insert(pod.uid().to_owned());
            }
            if notes.release.len() >= MOST_NOTES {
                notes.more = true;
                break;
            }
        }
        notes
    }

    /// The form in which the status carries them.
    pub fn written(&self) -> UncountedTerminatedPods {
        let list = |uids: &BTreeSet<String>| (!uids.is_empty()).then(|| uids.iter().cloned().collect());
        UncountedTerminatedPods { succeeded: list(&self.succeeded), failed: list(&self.failed) }
    }

    /// Moves what ended, and was let go, into the totals of a status.
    pub fn count(&self, status: &mut JobStatus) {
        let add = |total: &mut Option<i32>, more: usize| {
            let sum = total.unwrap_or_default().saturating_add(super::plan::number(more));
            *total = (sum > 0).then_some(sum);
        };
        add(&mut status.succeeded, self.succeeded.len());
        add(&mut status.failed, self.failed.len());
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
    }
}

async fn untrack(context: &Context, pod: &Pod) -> Result<(), ClientError> {
    let patch = json!({ "metadata": { "uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER] } });
    let (client, options) = (&context.client, PatchOptions::default());
    match client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
