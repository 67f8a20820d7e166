//! Watches DaemonSets, nodes and pods, and does what the plan says.

use super::backoff::Backoff;
use super::plan::{self, ByNode};
use crate::batches;
use crate::claim::claim_pods;
use crate::context::Context;
use crate::owners::Owners;
use crate::ownership::{BY_CONTROLLER, index_by_owner, labels_of};
use crate::pods::until_available;
use crate::revisions::{self, REVISION};
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions, unless_missing};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue};
use pintle_types::k8s::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const WORKERS: usize = 2;
/// Pods created or deleted in one go at most.
const BURST: usize = 250;

struct Controller {
    context: Context,
    owners: Arc<Owners<DaemonSet>>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    backoff: Mutex<Backoff>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let owners = Owners::watch(&context, |set, pod| selector_of(set).matches(labels_of(&pod.metadata)));
    let controller = Controller {
        owners: owners.clone(),
        nodes: context.informers.of(),
        revisions: context.informers.of(),
        backoff: Mutex::default(),
        context: context.clone(),
    };
    index_by_owner(&controller.revisions);
    let (sets, queue) = (owners.objects.clone(), owners.queue.clone());
    controller.nodes.on_change(move |change| node_changed(change, &sets, &queue));
    controller.nodes.synced().await;
    controller.revisions.synced().await;
    owners.run("daemonset-controller", WORKERS, |key| controller.reconcile(key), context.stop).await;
}

fn selector_of(set: &DaemonSet) -> LabelSelector {
    LabelSelector::from_typed(set.spec.as_ref().map(|spec| &spec.selector))
}

/// A changed template is tried at once.
fn backoff_key(set: &DaemonSet, node: &str) -> String {
    format!("{}/{}/{node}", set.uid(), set.metadata.generation.unwrap_or_default())
}

/// A node's heartbeats change nothing; its labels and taints may.
fn node_changed(change: &Change<Node>, sets: &Informer<DaemonSet>, queue: &Queue<ObjectKey>) {
    for set in sets.list() {
        let fits = |node: Option<&Arc<Node>>| node.map(|node| plan::fits(&set, node));
        if fits(change.old()) != fits(change.new()) {
            queue.add(set.key());
        }
    }
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(set) = self.owners.objects.get(&key) else {
            self.owners.expectations.forget(&key);
            return Ok(Outcome::Done);
        };
        let selector = selector_of(&set);
        if selector.is_everything() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.context.recorder.event(&*set, EventType::Warning, "SelectingAll", message);
            return Ok(Outcome::Done);
        }
        let may_act = self.owners.settled(&self.context, &set, &selector).await? && !set.is_deleting();
        let (owned, orphans) = (self.owners.pods_of(&set), self.owners.orphans_near(&set));
        let owned = claim_pods(&self.context, &*set, &selector, owned, orphans).await?;
        let mut pods = ByNode::new();
        for pod in owned {
            if let Some(node) = plan::node_of(&pod).map(str::to_owned) {
                pods.entry(node).or_default().push(pod);
            }
        }
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let known = self.revisions.by_index(BY_CONTROLLER, set.uid());
        let newest = revisions::newest(&self.context, &*set, &template, &known).await?;
        let revision = newest.label(REVISION).unwrap_or_default();
        let (nodes, now) = (self.nodes.list(), self.context.now());
        let (mut result, mut wait) = (Ok(()), None);
        if may_act {
            let held = |node: &str| self.held(&set, node).is_some();
            let mut step = plan::place(&set, &nodes, &pods, revision, &held, now);
            wait = step.held.iter().filter_map(|node| self.held(&set, node)).min();
            if step.is_empty() {
                step = plan::replace(&set, &nodes, &pods, revision, now);
            }
            result = self.take(&key, &set, step, revision).await;
        }
        let new = plan::status(&set, &nodes, &pods, revision, now);
        self.write_status(&set, new).await?;
        let in_use = |known: &ControllerRevision| {
            let hash = known.label(REVISION);
            hash == Some(revision) || pods.values().flatten().any(|pod| pod.label(REVISION) == hash)
        };
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        revisions::truncate(&self.context, known, limit, in_use).await?;
        result?;
        let seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
        let ready = until_available(pods.values().flatten(), seconds, now);
        Ok(ready.into_iter().chain(wait).min().map_or(Outcome::Done, Outcome::After))
    }

    /// How long a failed pod of a node must wait for its replacement.
    fn held(&self, set: &DaemonSet, node: &str) -> Option<Duration> {
        self.backoff.lock().left(&backoff_key(set, node), Instant::now())
    }

    async fn take(
        &self,
        key: &ObjectKey,
        set: &Arc<DaemonSet>,
        step: plan::Step,
        revision: &str,
    ) -> Result<(), ClientError> {
        self.tell_ended(set, &step);
        let mut step = step;
        step.create.truncate(BURST);
        step.delete.truncate(BURST);
        let gone = step.delete.iter().map(|pod| pod.uid().to_owned());
        self.owners.expectations.expect(key, step.create.len(), gone);
        let create = |i: usize| self.create(set, plan::pod(set, &step.create[i], revision));
        let (_, error) = self.owners.create(key, step.create.len(), create).await;
        batches::all(step.delete, |pod| self.delete(key, set, pod)).await?;
        match error {
            Some(error) if !error.is_namespace_terminating() => Err(error),
            _ => Ok(()),
        }
    }

    fn tell_ended(&self, set: &Arc<DaemonSet>, step: &plan::Step) {
        let recorder = &self.context.recorder;
        for pod in &step.failed {
            let node = plan::node_of(pod).unwrap_or_default();
            self.backoff.lock().failed(&backoff_key(set, node), Instant::now());
            let message = format!("Found failed daemon pod {} on node {node}, will try to kill it", pod.key());
            recorder.event(&**set, EventType::Warning, "FailedDaemonPod", message);
        }
        for pod in &step.succeeded {
            let node = plan::node_of(pod).unwrap_or_default();
            let message = format!("Found succeeded daemon pod {} on node {node}, will try to delete it", pod.key());
            recorder.event(&**set, EventType::Normal, "SucceededDaemonPod", message);
        }
    }

    async fn create(&self, set: &Arc<DaemonSet>, pod: Pod) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        match self.context.client.create(&pod).await {
            Ok(pod) => {
                recorder.event(&**set, EventType::Normal, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                Ok(())
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    recorder.event(&**set, EventType::Warning, "FailedCreate", format!("Error creating: {error}"));
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, set: &Arc<DaemonSet>, pod: Arc<Pod>) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        let options = DeleteOptions::of_uid(pod.uid());
        let Err(error) = self.context.client.delete::<Pod>(pod.namespace(), pod.name(), &options).await else {
            recorder.event(&**set, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
            return Ok(());
        };
        self.owners.expectations.deleted(key, pod.uid());
        if error.is_not_found() || error.is_conflict() {
            return Ok(());
        }
        recorder.event(&**set, EventType::Warning, "FailedDelete", format!("Error deleting: {error}"));
        Err(error)
    }

    async fn write_status(&self, set: &DaemonSet, new: DaemonSetStatus) -> Result<(), ClientError> {
        if set.status.as_ref() == Some(&new) {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = Some(new);
        unless_missing(self.context.client.update_status(&changed).await).map(drop)
    }
}
