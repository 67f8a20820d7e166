//! Watches nodes and their leases; a node whose kubelet gives no sign of life becomes `Unknown`.

use super::plan::{condition, silent, taints};
use crate::context::Context;
use crate::ownership::labels_of;
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, Selector, run_reconciler};
use pintle_types::k8s::api::coordination::v1::Lease;
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The index of pods by their node.
pub const BY_NODE: &str = "node";
const WORKERS: usize = 4;
/// How long a node that has just been made may take to give its first.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// Values for [`BY_NODE`].
pub fn node_of(pod: &Pod) -> Vec<String> {
    let node = pods::node_name(pod);
    if node.is_empty() { Vec::new() } else { vec![node.to_owned()] }
}

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// When each node last gave a sign of life, by this machine's clock: theirs may be wrong.
    heard: Arc<Mutex<HashMap<String, Instant>>>,
    /// How long a node may give no sign of life.
    grace: Duration,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context, grace: Duration) {
    let controller = Controller {
        nodes: context.informers.of(),
        pods: context.informers.of(),
        heard: Arc::default(),
        grace,
        context: context.clone(),
    };
    let leases = context.informers.selected::<Lease>(Selector::namespace("kube-node-lease"));
    controller.pods.index(BY_NODE, node_of);
    let queue: Queue<ObjectKey> = Queue::new();
    let (heard, from_nodes, recorder) = (controller.heard.clone(), queue.clone(), context.recorder.clone());
    controller.nodes.on_change(move |change| {
        let node = change.object();
        let key = node.name().to_owned();
        match change {
            Change::Added(_) => {
                heard.lock().entry(key).or_insert_with(Instant::now);
                let message = format!("Node {0} event: Registered Node {0} in Controller", node.name());
                recorder.event(&**node, EventType::Normal, "RegisteredNode", message);
            }
            Change::Modified(old, new) => {
                if heartbeat(old) != heartbeat(new) {
                    heard.lock().insert(key, Instant::now());
                }
            }
            Change::Deleted(_) => {
                heard.lock().remove(&key);
                let message = format!("Node {0} event: Removing Node {0} from Controller", node.name());
                recorder.event(&**node, EventType::Normal, "RemovingNode", message);
            }
        }
        from_nodes.add(node.key());
    });
    let heard = controller.heard.clone();
    leases.on_change(move |change| {
        let renewed = change.old().map(|lease| &lease.spec) != change.new().map(|lease| &lease.spec);
        // A timer per node looks at this; a renewal itself wakes nobody.
        if renewed && let Some(at) = heard.lock().get_mut(change.object().name()) {
            *at = Instant::now();
        }
    });
    controller.nodes.synced().await;
    controller.pods.synced().await;
    leases.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("node-lifecycle-controller", queue, WORKERS, reconcile, context.stop.clone()).await;
}

fn heartbeat(node: &Node) -> Option<&pintle_types::Time> {
    condition(node, "Ready")?.last_heartbeat_time.as_ref()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(node) = self.nodes.get(&key) else { return Ok(Outcome::Done) };
        let heard = self.heard.lock().get(&key.name).copied().unwrap_or_else(Instant::now);
        let ready = condition(&node, "Ready");
        let grace = if ready.is_some() { self.grace } else { STARTUP_GRACE.max(self.grace) };
        let (unknown, was_ready) = match ready.map(|ready| ready.status.as_str()) {
            Some("Unknown") => (true, false),
            Some("True") => (false, true),
            _ => (false, false),
        };
        if heard.elapsed() >= grace && !unknown {
            return self.silence(&node, was_ready).await;
        }
        if let Some(taints) = taints(&node, self.context.now()) {
            let mut changed = Node::clone(&node);
            changed.spec.get_or_insert_default().taints = (!taints.is_empty()).then_some(taints);
            // The change comes back as an event, and with it the next look.
            absent_is_fine(self.context.client.update(&changed).await)?;
        }
        if unknown {
            self.mark_pods(&node).await?;
            return Ok(Outcome::Done);
        }
        Ok(Outcome::After(grace.saturating_sub(heard.elapsed()) + Duration::from_millis(100)))
    }

    async fn silence(&self, node: &Arc<Node>, was_ready: bool) -> Result<Outcome, ClientError> {
        let mut changed = Node::clone(node);
        changed.status.get_or_insert_default().conditions = Some(silent(node, self.context.now()));
        absent_is_fine(self.context.client.update_status(&changed).await)?;
        tracing::warn!(node = node.name(), labels = ?labels_of(&node.metadata), "the node fell silent");
        if was_ready {
            let message = format!("Node {} status is now: NodeNotReady", node.name());
            self.context.recorder.event(&**node, EventType::Normal, "NodeNotReady", message);
        }
        Ok(Outcome::Done)
    }

    /// Says of the pods of a node that nothing is heard of that they aren't ready, so that no traffic goes there.
    async fn mark_pods(&self, node: &Node) -> Result<(), ClientError> {
        for pod in self.pods.by_index(BY_NODE, node.name()) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let condition = json!({ "type": "Ready", "status": "False", "lastTransitionTime": self.context.time() });
            let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } });
            let (client, options) = (&self.context.client, PatchOptions::status());
            absent_is_fine(client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await)?;
            self.context.recorder.event(&*pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

fn absent_is_fine<T>(result: Result<T, ClientError>) -> Result<(), ClientError> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
