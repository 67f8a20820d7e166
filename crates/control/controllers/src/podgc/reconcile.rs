//! Watches pods and nodes, and force-deletes what is left over.

use super::plan::{Finished, KEPT, Leftover, is_lost, leftover};
use crate::context::Context;
use crate::node::{BY_NODE, node_of};
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions, unless_missing};
use pintle_informer::{Change, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A node may be away for this long without its pods being taken for lost.
const QUARANTINE: Duration = Duration::from_secs(40);

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    missing_since: Mutex<HashMap<String, Instant>>,
    finished: Arc<Mutex<Finished>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let controller = Controller {
        nodes: context.informers.of(),
        pods: context.informers.of(),
        missing_since: Mutex::default(),
        finished: Arc::new(Mutex::new(Finished::keeping(KEPT))),
        context: context.clone(),
    };
    controller.pods.index(BY_NODE, node_of);
    controller.nodes.synced().await;
    let queue: Queue<ObjectKey> = Queue::new();
    let (pods, from_nodes) = (controller.pods.clone(), queue.clone());
    controller.nodes.on_change(move |change| {
        let node = change.object();
        let lost = change.new().is_some_and(|node| is_lost(node)) && !change.old().is_some_and(|node| is_lost(node));
        if lost || matches!(change, Change::Deleted(_)) {
            pods.by_index(BY_NODE, node.name()).iter().for_each(|pod| from_nodes.add(pod.key()));
        }
    });
    let (nodes, from_pods, finished) = (controller.nodes.clone(), queue.clone(), Arc::clone(&controller.finished));
    controller.pods.on_change(move |change| {
        let surplus = finished.lock().change(change.old().map(|pod| &**pod), change.new().map(|pod| &**pod));
        surplus.into_iter().for_each(|key| from_pods.add(key));
        let Some(pod) = change.new() else { return };
        let node = nodes.get(&ObjectKey::new("", pods::node_name(pod)));
        if leftover(pod, node.as_deref()).is_some() {
            from_pods.add(pod.key());
        }
    });
    controller.pods.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("pod-garbage-collector", queue, 2, reconcile, context.stop.clone()).await;
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(pod) = self.pods.get(&key) else { return Ok(Outcome::Done) };
        let node = self.nodes.get(&ObjectKey::new("", pods::node_name(&pod)));
        if let Some(node) = &node {
            self.missing_since.lock().remove(node.name());
        }
        match leftover(&pod, node.as_deref()) {
            Some(Leftover::Orphaned) => return self.reconcile_orphan(&pod).await,
            Some(Leftover::OutOfService) => {
                self.fail(&pod, None).await?;
                self.delete(&pod).await?;
            }
            Some(Leftover::Unscheduled) => self.delete(&pod).await?,
            None => {
                let surplus = self.finished.lock().is_surplus(&pod);
                if surplus && !pod.is_deleting() {
                    self.delete(&pod).await?;
                }
            }
        }
        Ok(Outcome::Done)
    }

    async fn reconcile_orphan(&self, pod: &Pod) -> Result<Outcome, ClientError> {
        let node = pods::node_name(pod);
        let since = *self.missing_since.lock().entry(node.to_owned()).or_insert_with(Instant::now);
        if since.elapsed() < QUARANTINE {
            return Ok(Outcome::After(QUARANTINE - since.elapsed()));
        }
        if self.context.client.get_opt::<Node>("", node).await?.is_none() {
            let condition = json!({
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
                "lastTransitionTime": self.context.time(),
            });
            self.fail(pod, Some(condition)).await?;
            self.delete(pod).await?;
        }
        Ok(Outcome::Done)
    }

    /// Says that the pod ends, and why, for those who watch it.
    async fn fail(&self, pod: &Pod, condition: Option<Value>) -> Result<(), ClientError> {
        if pods::is_finished(pod) {
            return Ok(());
        }
        let mut status = json!({ "phase": "Failed" });
        if let Some(condition) = condition {
            status["conditions"] = json!([condition]);
        }
        let patch = json!({ "metadata": { "uid": pod.uid() }, "status": status });
        let (client, options) = (&self.context.client, PatchOptions::status());
        unless_missing(client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await)?;
        Ok(())
    }

    async fn delete(&self, pod: &Pod) -> Result<(), ClientError> {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::of_uid(pod.uid()) };
        match self.context.client.delete::<Pod>(pod.namespace(), pod.name(), &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}
