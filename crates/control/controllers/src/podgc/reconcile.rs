//! Watches pods and nodes, and force-deletes what is left over.

use crate::context::Context;
use crate::node::{BY_NODE, node_of};
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions};
use pintle_informer::{Change, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A node may be away for this long without its pods being taken for lost.
const QUARANTINE: Duration = Duration::from_secs(40);

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    missing_since: Mutex<HashMap<String, Instant>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let controller = Controller {
        nodes: context.informers.of(),
        pods: context.informers.of(),
        missing_since: Mutex::default(),
        context: context.clone(),
    };
    controller.pods.index(BY_NODE, node_of);
    controller.nodes.synced().await;
    let queue: Queue<ObjectKey> = Queue::new();
    let (pods, from_nodes) = (controller.pods.clone(), queue.clone());
    controller.nodes.on_change(move |change| {
        if let Change::Deleted(node) = change {
            pods.by_index(BY_NODE, node.name()).iter().for_each(|pod| from_nodes.add(pod.key()));
        }
    });
    let (nodes, from_pods) = (controller.nodes.clone(), queue.clone());
    controller.pods.on_change(move |change| {
        let Some(pod) = change.new() else { return };
        let node = pods::node_name(pod);
        let lost = !node.is_empty() && nodes.get(&ObjectKey::new("", node)).is_none();
        if lost || (node.is_empty() && pod.is_deleting()) {
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
        let node = ObjectKey::new("", pods::node_name(&pod));
        if node.name.is_empty() {
            if pod.is_deleting() {
                self.delete(&pod).await?;
            }
            return Ok(Outcome::Done);
        }
        if self.nodes.get(&node).is_some() {
            self.missing_since.lock().remove(&node.name);
            return Ok(Outcome::Done);
        }
        let since = *self.missing_since.lock().entry(node.name.clone()).or_insert_with(Instant::now);
        if since.elapsed() < QUARANTINE {
            return Ok(Outcome::After(QUARANTINE - since.elapsed()));
        }
        if self.context.client.get_opt::<Node>("", &node.name).await?.is_none() {
            self.fail(&pod).await?;
            self.delete(&pod).await?;
        }
        Ok(Outcome::Done)
    }

    /// Says why the pod ends, for those who watch it.
    async fn fail(&self, pod: &Pod) -> Result<(), ClientError> {
        if pods::is_finished(pod) {
            return Ok(());
        }
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
            "lastTransitionTime": self.context.time(),
        });
        let status = json!({ "phase": "Failed", "conditions": [condition] });
        let patch = json!({ "metadata": { "uid": pod.uid() }, "status": status });
        let (client, options) = (&self.context.client, PatchOptions::status());
        match client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<(), ClientError> {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::of_uid(pod.uid()) };
        match self.context.client.delete::<Pod>(pod.namespace(), pod.name(), &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}
