//! The scheduler's loop: keeps the snapshot, takes pods from the queue, binds them in the background.

use crate::cycle::schedule;
use crate::pod::PodInfo;
use crate::queue::PodQueue;
use crate::snapshot::Snapshot;
use parking_lot::Mutex;
use pintle_client::{Client, ClientError, Patch, PatchOptions};
use pintle_clock::Clock;
use pintle_informer::{Change, EventType, Informer, Informers, Recorder};
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::{Kind, ObjectKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const NAME: &str = "default-scheduler";
/// Bindings under way at a time.
const MAX_BINDINGS: usize = 256;

/// What the scheduler works with.
pub struct Config {
    pub client: Client,
    /// May be shared with others that read pods and nodes.
    pub informers: Informers,
    pub clock: Arc<dyn Clock>,
    /// Of the choice among equal nodes: the same seed and events make the same choices.
    pub seed: u64,
}

/// Nothing ends the scheduler but its token.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// What the handlers of changes and the loop share.
struct Shared {
    snapshot: Mutex<Snapshot>,
    /// Pods that were given a node that the API server has not confirmed yet.
    assumed: Mutex<HashSet<ObjectKey>>,
    queue: PodQueue,
}

struct Scheduler {
    shared: Arc<Shared>,
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    bindings: TaskTracker,
    permits: Arc<Semaphore>,
}

/// Schedules pods until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let shared = Arc::new(Shared { snapshot: Mutex::default(), assumed: Mutex::default(), queue: PodQueue::default() });
    let nodes: Informer<Node> = config.informers.of();
    let pods: Informer<Pod> = config.informers.of();
    let of_nodes = Arc::clone(&shared);
    nodes.on_change(move |change| of_nodes.node_changed(change));
    let of_pods = Arc::clone(&shared);
    pods.on_change(move |change| of_pods.pod_changed(change));
    let recorder = Recorder::with_clock(config.client.clone(), NAME, "", Arc::clone(&config.clock));
    let scheduler = Scheduler {
        shared,
        client: config.client,
        recorder,
        clock: config.clock,
        bindings: TaskTracker::new(),
        permits: Arc::new(Semaphore::new(MAX_BINDINGS)),
    };
    stop.run_until_cancelled(async {
        nodes.synced().await;
        pods.synced().await;
        scheduler.work(StdRng::seed_from_u64(config.seed)).await;
    })
    .await;
    scheduler.bindings.close();
    scheduler.bindings.wait().await;
    Ok(())
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the pod waits for this scheduler.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    let name = spec.scheduler_name.as_deref().unwrap_or(NAME);
    name == NAME && !gated && !pod.is_deleting() && !is_finished(pod)
}

impl Shared {
    fn node_changed(&self, change: &Change<Node>) {
        match change.new() {
            Some(node) => self.snapshot.lock().set_node(Arc::clone(node)),
            None => self.snapshot.lock().remove_node(change.object().name()),
        }
        if change.new().is_some_and(|new| change.old().is_none_or(|old| may_help(old, new))) {
            self.queue.cluster_changed();
        }
    }

    // flow: pod 7/16
    fn pod_changed(&self, change: &Change<Pod>) {
        let key = change.object().key();
        let Some(pod) = change.new().filter(|pod| !is_finished(pod)) else {
            self.assumed.lock().remove(&key);
            self.queue.remove(&key);
            if self.snapshot.lock().remove_pod(&key) {
                self.queue.cluster_changed();
            }
            return;
        };
        if let Some(node) = node_name(pod) {
            let info = Arc::new(PodInfo::new(Arc::clone(pod)));
            let known = self.snapshot.lock().set_pod(info, node);
            self.assumed.lock().remove(&key);
            self.queue.remove(&key);
            // Another pod of the same kind may be what an affinity waits for.
            if !known {
                self.queue.cluster_changed();
            }
        } else if !is_ours(pod) {
            self.queue.remove(&key);
        } else if !self.assumed.lock().contains(&key) {
            self.queue.add(Arc::new(PodInfo::new(Arc::clone(pod))));
        }
    }
}

/// Whether a change of a node could make room or reason for a pod: not the heartbeats of its status.
fn may_help(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || allocatable(old) != allocatable(new)
}

impl Scheduler {
    async fn work(&self, mut random: StdRng) {
        let mut start = 0;
        loop {
            let pod = self.shared.queue.pop().await;
            let chosen = {
                let mut snapshot = self.shared.snapshot.lock();
                let chosen = schedule(&pod, &snapshot, start, &mut random).map(str::to_owned);
                start = start.wrapping_add(snapshot.nodes().len() / 2 + 1);
                if let Ok(node) = &chosen {
                    snapshot.set_pod(Arc::clone(&pod), node);
                    self.shared.assumed.lock().insert(pod.key.clone());
                }
                chosen
            };
            match chosen {
                Ok(node) => self.bind(pod, node).await,
                Err(misfit) => {
                    self.shared.queue.failed(&pod.key, false);
                    self.report(&pod, &misfit.to_string()).await;
                }
            }
        }
    }

    /// Tells the API server of the choice, in the background.
    async fn bind(&self, pod: Arc<PodInfo>, node: String) {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        let (shared, client, recorder) = (Arc::clone(&self.shared), self.client.clone(), self.recorder.clone());
        self.bindings.spawn(async move {
            let _permit = permit;
            match post_binding(&client, &pod, &node).await {
                Ok(()) => {
                    let message = format!("Successfully assigned {} to {node}", pod.key);
                    recorder.event(&*pod.pod, EventType::Normal, "Scheduled", message);
                }
                Err(error) => {
                    tracing::warn!(pod = %pod.key, node, %error, "a binding failed");
                    shared.assumed.lock().remove(&pod.key);
                    shared.snapshot.lock().remove_pod(&pod.key);
                    // A pod that is gone leaves the queue by its own event.
                    shared.queue.failed(&pod.key, true);
                }
            }
        });
    }

    /// Says on the pod why it waits.
    async fn report(&self, pod: &PodInfo, message: &str) {
        self.recorder.event(&*pod.pod, EventType::Warning, "FailedScheduling", message);
        let current = pod.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let told = current.filter(|c| c.type_ == "PodScheduled").any(|c| c.message.as_deref() == Some(message));
        if told {
            return;
        }
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "observedGeneration": pod.pod.metadata.generation,
            "lastProbeTime": null, "lastTransitionTime": self.clock.now_seconds().to_string(),
        });
        let patch =
            Patch::Strategic(json!({ "metadata": { "uid": pod.pod.uid() }, "status": { "conditions": [condition] } }));
        let result = self.client.patch::<Pod>(&pod.key.namespace, &pod.key.name, patch, &PatchOptions::status()).await;
        if let Err(error) = result.map(drop).or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) }) {
            tracing::warn!(pod = %pod.key, %error, "could not say on a pod why it is unschedulable");
        }
    }
}

async fn post_binding(client: &Client, pod: &PodInfo, node: &str) -> Result<(), ClientError> {
    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "namespace": namespace, "name": name, "uid": pod.pod.uid() },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    client.create_sub::<Pod>(namespace, name, "binding", &binding).await.map(drop)
}
