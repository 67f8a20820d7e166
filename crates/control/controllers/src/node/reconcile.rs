//! Watches nodes and their leases; a node whose kubelet gives no sign of life becomes `Unknown`.

use super::plan::{condition, silent, taints};
use super::settings::Settings;
use super::zones::{Look, Next, Turn, Zones};
use crate::context::Context;
use crate::ownership::labels_of;
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, Patch, PatchOptions, unless_missing};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, Selector, run_reconciler};
use pintle_types::k8s::api::coordination::v1::Lease;
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

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
    queue: Queue<ObjectKey>,
    signs: Signs,
    watched: Arc<Watched>,
    /// How long a node may give no sign of life.
    grace: Duration,
}

/// When each node last gave a sign of life, by this machine's clock: theirs may be wrong.
type Signs = Arc<Mutex<HashMap<String, Instant>>>;

/// The zones of the nodes, and who waits for changes of them.
struct Watched {
    zones: Mutex<Zones>,
    changed: Notify,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context, settings: Settings) {
    let controller = Controller {
        nodes: context.informers.of(),
        pods: context.informers.of(),
        queue: Queue::new(),
        signs: Arc::default(),
        watched: Arc::new(Watched { zones: Mutex::new(Zones::new(settings)), changed: Notify::new() }),
        grace: settings.grace,
        context: context.clone(),
    };
    let leases = context.informers.selected::<Lease>(Selector::namespace("kube-node-lease"));
    controller.pods.index(BY_NODE, node_of);
    controller.listen();
    let signs = controller.signs.clone();
    leases.on_change(move |change| {
        let renewed = change.old().map(|lease| &lease.spec) != change.new().map(|lease| &lease.spec);
        // A timer per node looks at this; a renewal itself wakes nobody.
        if renewed && let Some(at) = signs.lock().get_mut(change.object().name()) {
            *at = Instant::now();
        }
    });
    controller.nodes.synced().await;
    controller.pods.synced().await;
    leases.synced().await;
    let turn = controller.watched.zones.lock().start(Instant::now());
    act(turn, &controller.watched, &controller.signs, &controller.queue);
    let reconcile = |key| controller.reconcile(key);
    let working =
        run_reconciler("node-lifecycle-controller", controller.queue.clone(), WORKERS, reconcile, context.stop.clone());
    tokio::join!(working, context.stop.run_until_cancelled(controller.pace()));
}

/// Does what a change of one node means for all.
fn act(turn: Turn, watched: &Watched, signs: &Signs, queue: &Queue<ObjectKey>) {
    match turn {
        Turn::None => (),
        Turn::Stops => {
            tracing::info!("no node is ready: no pod has to leave its node until one is");
            watched.zones.lock().tainted().for_each(|name| queue.add(ObjectKey::new("", name)));
        }
        Turn::Resumes => {
            tracing::info!("some nodes are ready: pods leave those that aren't");
            let now = Instant::now();
            signs.lock().values_mut().for_each(|at| *at = now);
        }
    }
    watched.changed.notify_one();
}

fn heartbeat(node: &Node) -> Option<&pintle_types::Time> {
    condition(node, "Ready")?.last_heartbeat_time.as_ref()
}

impl Controller {
    /// Takes in what happens to nodes.
    fn listen(&self) {
        let (signs, queue, watched) = (self.signs.clone(), self.queue.clone(), self.watched.clone());
        let recorder = self.context.recorder.clone();
        self.nodes.on_change(move |change| {
            let node = change.object();
            let (name, now) = (node.name(), Instant::now());
            match change {
                Change::Added(_) => {
                    signs.lock().entry(name.to_owned()).or_insert(now);
                    let message = format!("Node {name} event: Registered Node {name} in Controller");
                    recorder.event(&**node, EventType::Normal, "RegisteredNode", message);
                }
                Change::Modified(old, new) => {
                    if heartbeat(old) != heartbeat(new) {
                        signs.lock().insert(name.to_owned(), now);
                    }
                }
                Change::Deleted(_) => {
                    signs.lock().remove(name);
                    let message = format!("Node {name} event: Removing Node {name} from Controller");
                    recorder.event(&**node, EventType::Normal, "RemovingNode", message);
                }
            }
            let (old, new) = (change.old().map(|node| Look::at(node)), change.new().map(|node| Look::at(node)));
            if old != new {
                let turn = watched.zones.lock().see(name, new, now);
                act(turn, &watched, &signs, &queue);
            }
            queue.add(node.key());
        });
    }

    /// Tells the workers of nodes that pods must leave, one after the other.
    async fn pace(&self) {
        loop {
            let next = self.watched.zones.lock().next(Instant::now());
            let changed = self.watched.changed.notified();
            match next {
                Next::Taint(name) => self.queue.add(ObjectKey::new("", &*name)),
                // Whether time or a change ended the wait: the next look tells.
                Next::At(at) => drop(timeout_at(at, changed).await),
                Next::Nothing => changed.await,
            }
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(node) = self.nodes.get(&key) else { return Ok(Outcome::Done) };
        let heard = self.signs.lock().get(&key.name).copied().unwrap_or_else(Instant::now);
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
        let execute = self.watched.zones.lock().execute(&key.name);
        if let Some(taints) = taints(&node, execute, self.context.now()) {
            let mut changed = Node::clone(&node);
            changed.spec.get_or_insert_default().taints = (!taints.is_empty()).then_some(taints);
            // The change comes back as an event, and with it the next look.
            unless_missing(self.context.client.update(&changed).await)?;
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
        unless_missing(self.context.client.update_status(&changed).await)?;
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
            unless_missing(client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await)?;
            self.context.recorder.event(&*pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}
