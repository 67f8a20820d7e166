//! The scheduler's loop: keeps the snapshot, takes pods from the queue, binds them in the background.

use crate::bind_volumes::{self, Failure};
use crate::csi_nodes;
use crate::cycle::{Misfit, schedule};
use crate::evict::Eviction;
use crate::hints::Event;
use crate::pod::PodInfo;
use crate::preemption::{Preemption, preempt};
use crate::queue::PodQueue;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::storage::Decision;
use crate::volumes::Volumes;
use parking_lot::Mutex;
use pintle_client::{Client, ClientError, Patch, PatchOptions};
use pintle_clock::Clock;
use pintle_informer::{Change, EventType, Informer, Informers, Recorder};
use pintle_types::k8s::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use pintle_types::k8s::api::storage::v1::StorageClass;
use pintle_types::{Kind, ObjectKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const NAME: &str = "default-scheduler";
/// Bindings under way at a time.
const MAX_BINDINGS: usize = 256;

/// What the scheduler works with.
#[derive(Clone)]
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
pub(crate) struct Shared {
    pub(crate) snapshot: Mutex<Snapshot>,
    /// Pods that were given a node that the API server has not confirmed yet.
    pub(crate) assumed: Mutex<HashSet<ObjectKey>>,
    queue: PodQueue,
    /// Wakes those who wait for claims: a claim changed, or a pod that waited is gone.
    pub(crate) storage_changed: Notify,
    /// The first volume of a CSI driver was seen: limits of nodes matter from then on.
    pub(crate) csi_seen: Notify,
}

struct Scheduler {
    shared: Arc<Shared>,
    budgets: Informer<PodDisruptionBudget>,
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    bindings: TaskTracker,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Schedules pods until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let shared = Arc::new(Shared {
        snapshot: Mutex::default(),
        assumed: Mutex::default(),
        queue: PodQueue::default(),
        storage_changed: Notify::new(),
        csi_seen: Notify::new(),
    });
    let nodes: Informer<Node> = config.informers.of();
    let pods: Informer<Pod> = config.informers.of();
    let budgets: Informer<PodDisruptionBudget> = config.informers.of();
    let namespaces: Informer<Namespace> = config.informers.of();
    let of_namespaces = Arc::clone(&shared);
    namespaces.on_change(move |change| of_namespaces.namespace_changed(change));
    let of_nodes = Arc::clone(&shared);
    nodes.on_change(move |change| of_nodes.node_changed(change));
    let claims: Informer<PersistentVolumeClaim> = config.informers.of();
    let volumes: Informer<PersistentVolume> = config.informers.of();
    let classes: Informer<StorageClass> = config.informers.of();
    let (of_claims, of_volumes, of_classes) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
    claims.on_change(move |change| of_claims.claim_changed(change));
    volumes.on_change(move |change| of_volumes.volume_changed(change));
    classes.on_change(move |change| of_classes.class_changed(change));
    let of_pods = Arc::clone(&shared);
    pods.on_change(move |change| of_pods.pod_changed(change));
    let recorder = Recorder::with_clock(config.client.clone(), NAME, "", Arc::clone(&config.clock));
    let scheduler = Scheduler {
        shared,
        budgets,
        client: config.client,
        recorder,
        clock: config.clock,
        bindings: TaskTracker::new(),
        permits: Arc::new(Semaphore::new(MAX_BINDINGS)),
        stop: stop.clone(),
    };
    stop.run_until_cancelled(async {
        nodes.synced().await;
        pods.synced().await;
        namespaces.synced().await;
        claims.synced().await;
        volumes.synced().await;
        classes.synced().await;
        let limits = csi_nodes::follow(scheduler.client.clone(), Arc::clone(&scheduler.shared), stop.clone());
        tokio::join!(scheduler.work(StdRng::seed_from_u64(config.seed)), limits);
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
    /// Something changed; those whom it could help are wanted again.
    pub(crate) fn cluster_changed(&self, event: &Event) {
        self.queue.cluster_changed(event);
    }

    fn namespace_changed(&self, change: &Change<Namespace>) {
        let name = change.object().name();
        let Some(new) = change.new() else { return self.snapshot.lock().remove_namespace(name) };
        if change.old().is_some_and(|old| old.metadata.labels == new.metadata.labels) {
            return;
        }
        self.snapshot.lock().set_namespace(name, new.metadata.labels.clone().unwrap_or_default());
        self.queue.cluster_changed(&Event::NamespaceChanged);
    }

    fn claim_changed(&self, change: &Change<PersistentVolumeClaim>) {
        let key = change.object().key();
        self.snapshot.lock().storage_mut().set_claim(&key, change.new().cloned());
        if change.new().is_some() {
            self.queue.cluster_changed(&Event::ClaimChanged(key));
        }
        self.storage_changed.notify_waiters();
    }

    fn volume_changed(&self, change: &Change<PersistentVolume>) {
        self.snapshot.lock().storage_mut().set_volume(change.object().name(), change.new().cloned());
        if change.new().and_then(|volume| volume.spec.as_ref()).is_some_and(|spec| spec.csi.is_some()) {
            self.csi_seen.notify_one();
        }
        if change.new().is_some() {
            self.queue.cluster_changed(&Event::StorageChanged);
        }
    }

    fn class_changed(&self, change: &Change<StorageClass>) {
        self.snapshot.lock().storage_mut().set_class(change.object().name(), change.new().cloned());
        let same = |old: &Arc<StorageClass>, new: &Arc<StorageClass>| old.allowed_topologies == new.allowed_topologies;
        match (change.old(), change.new()) {
            (_, None) => {}
            (Some(old), Some(new)) if same(old, new) => {}
            _ => self.queue.cluster_changed(&Event::StorageChanged),
        }
    }

    fn node_changed(&self, change: &Change<Node>) {
        let Some(new) = change.new() else {
            self.snapshot.lock().remove_node(change.object().name());
            return self.queue.cluster_changed(&Event::NodeGone);
        };
        self.snapshot.lock().set_node(Arc::clone(new));
        match change.old() {
            None => self.queue.cluster_changed(&Event::NodeAdded(Box::new(NodeInfo::alone(new)))),
            Some(old) if may_help(old, new) => {
                self.queue.cluster_changed(&Event::NodeChanged(Box::new([NodeInfo::alone(old), NodeInfo::alone(new)])));
            }
            Some(_) => {}
        }
    }

    // flow: pod 7/16
    fn pod_changed(&self, change: &Change<Pod>) {
        let key = change.object().key();
        let Some(pod) = change.new().filter(|pod| !is_finished(pod)) else {
            if self.assumed.lock().remove(&key) {
                self.storage_changed.notify_waiters();
            }
            self.queue.remove(&key);
            let mut snapshot = self.snapshot.lock();
            let counted = snapshot.remove_pod(&key) | snapshot.forget_nomination(&key);
            drop(snapshot);
            if counted {
                self.queue.cluster_changed(&Event::PodGone(Arc::new(PodInfo::new(Arc::clone(change.object())))));
            }
            return;
        };
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        if let Some(node) = node_name(pod) {
            self.assigned(change, &info, node);
        } else if !is_ours(pod) {
            self.queue.remove(&key);
            self.snapshot.lock().forget_nomination(&key);
        } else if !self.assumed.lock().contains(&key) {
            let told = |pod: &Pod| pod.status.as_ref().and_then(|s| s.nominated_node_name.clone());
            if change.old().is_none_or(|old| told(old) != told(pod)) {
                let mut snapshot = self.snapshot.lock();
                match info.nominated() {
                    Some(node) => snapshot.nominate(Arc::clone(&info), node),
                    None => drop(snapshot.forget_nomination(&key)),
                }
            }
            self.queue.add(info);
        }
    }

    fn assigned(&self, change: &Change<Pod>, info: &Arc<PodInfo>, node: &str) {
        let known = self.snapshot.lock().set_pod(Arc::clone(info), node);
        self.assumed.lock().remove(&info.key);
        self.queue.remove(&info.key);
        let differs = |old: &Arc<Pod>| {
            old.metadata.labels != info.pod.metadata.labels
                || old.is_deleting() != info.pod.is_deleting()
                || PodInfo::new(Arc::clone(old)).requests != info.requests
        };
        // Another pod of the same kind may be what an affinity waits for.
        if !known {
            self.queue.cluster_changed(&Event::PodAdded);
        } else if change.old().is_some_and(differs) {
            self.queue.cluster_changed(&Event::PodChanged);
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
                chosen.map(|node| {
                    let decision = decide(&pod, &node, &mut snapshot);
                    snapshot.set_pod(Arc::clone(&pod), &node);
                    self.shared.assumed.lock().insert(pod.key.clone());
                    (node, decision)
                })
            };
            match chosen {
                Ok((node, None)) => self.bind(pod, node).await,
                Ok((node, Some(decision))) => self.bind_with_volumes(pod, node, decision),
                Err(misfit) => self.make_room(pod, misfit, &mut random).await,
            }
        }
    }

    /// Asks pods of lower priority to leave when that helps; the pod waits in any case.
    async fn make_room(&self, pod: Arc<PodInfo>, mut misfit: Misfit, random: &mut StdRng) {
        let room = {
            let snapshot = self.shared.snapshot.lock();
            let budgets = if misfit.resolvable.is_empty() { Vec::new() } else { self.budgets.list() };
            preempt(&pod, &snapshot, &misfit, &budgets, random)
        };
        match room {
            Preemption::Room { node, victims } => {
                let displaced = self.nominate(&pod, &node);
                self.report(&pod, &misfit.to_string(), Some(&node)).await;
                self.evict(pod, misfit, Eviction { node, victims, displaced }).await;
            }
            Preemption::NotEligible(why_not) => {
                misfit.preemption = why_not.to_owned();
                self.shared.queue.unschedulable(&pod.key, misfit.plugins);
                self.report(&pod, &misfit.to_string(), None).await;
            }
            Preemption::NoNode(why_not) => {
                misfit.preemption = why_not;
                let promised = self.shared.snapshot.lock().forget_nomination(&pod.key) || pod.nominated().is_some();
                self.shared.queue.unschedulable(&pod.key, misfit.plugins);
                self.report(&pod, &misfit.to_string(), promised.then_some("")).await;
            }
        }
    }

    /// Promises the node's room to the pod; returns the less important pods that it was promised to before.
    fn nominate(&self, pod: &Arc<PodInfo>, node: &str) -> Vec<Arc<PodInfo>> {
        let mut snapshot = self.shared.snapshot.lock();
        let lesser = snapshot.nominated_on(node).filter(|p| p.priority < pod.priority).cloned();
        let displaced: Vec<Arc<PodInfo>> = lesser.collect();
        for other in &displaced {
            snapshot.forget_nomination(&other.key);
        }
        snapshot.nominate(Arc::clone(pod), node);
        displaced
    }

    /// Deletes the victims in the background; the pod is not tried again before that is done.
    async fn evict(&self, pod: Arc<PodInfo>, misfit: Misfit, eviction: Eviction) {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        let (shared, client, recorder) = (Arc::clone(&self.shared), self.client.clone(), self.recorder.clone());
        let now = self.clock.now_seconds().to_string();
        self.bindings.spawn(async move {
            let _permit = permit;
            match eviction.carry_out(&client, &recorder, &pod, &now).await {
                Ok(()) => shared.queue.unschedulable(&pod.key, misfit.plugins),
                Err(error) => {
                    tracing::warn!(pod = %pod.key, %error, "could not make room for a pod");
                    shared.snapshot.lock().forget_nomination(&pod.key);
                    shared.queue.retry(&pod.key);
                }
            }
        });
    }

    /// Tells the API server of the choice, in the background.
    async fn bind(&self, pod: Arc<PodInfo>, node: String) {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        let binder = self.binder();
        self.bindings.spawn(async move {
            let _permit = permit;
            binder.bind(&pod, &node).await;
        });
    }

    /// The same for a pod whose claims are to be bound first, which may take long: others don't wait for it.
    fn bind_with_volumes(&self, pod: Arc<PodInfo>, node: String, decision: Decision) {
        let (binder, permits) = (self.binder(), Arc::clone(&self.permits));
        self.bindings.spawn(async move {
            let bound = bind_volumes::bind(&binder.client, &binder.shared, &pod, &node, &decision);
            let bound = binder.stop.run_until_cancelled(bound).await;
            binder.shared.snapshot.lock().storage_mut().release(&decision);
            match bound {
                Some(Ok(())) => {
                    let Ok(_permit) = permits.acquire_owned().await else { return };
                    binder.bind(&pod, &node).await;
                }
                Some(Err(Failure::Gone)) | None => {}
                Some(Err(error)) => {
                    let message = format!("running PreBind plugin \"VolumeBinding\": {error}");
                    binder.recorder.event(&*pod.pod, EventType::Warning, "FailedScheduling", message);
                    binder.give_up(&pod);
                }
            }
        });
    }

    fn binder(&self) -> Binder {
        Binder {
            shared: Arc::clone(&self.shared),
            client: self.client.clone(),
            recorder: self.recorder.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Says on the pod why it waits, and where room is made for it (nowhere any more when empty).
    async fn report(&self, pod: &PodInfo, message: &str, nominated: Option<&str>) {
        self.recorder.event(&*pod.pod, EventType::Warning, "FailedScheduling", message);
        let current = pod.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let told = current.filter(|c| c.type_ == "PodScheduled").any(|c| c.message.as_deref() == Some(message));
        if told && nominated.is_none() {
            return;
        }
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "observedGeneration": pod.pod.metadata.generation,
            "lastProbeTime": null, "lastTransitionTime": self.clock.now_seconds().to_string(),
        });
        let mut status = json!({ "conditions": [condition] });
        if let Some(node) = nominated {
            status["nominatedNodeName"] = if node.is_empty() { json!(null) } else { json!(node) };
        }
        let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.pod.uid() }, "status": status }));
        let result = self.client.patch::<Pod>(&pod.key.namespace, &pod.key.name, patch, &PatchOptions::status()).await;
        if let Err(error) = result.map(drop).or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) }) {
            tracing::warn!(pod = %pod.key, %error, "could not say on a pod why it is unschedulable");
        }
    }
}

/// What binds a pod in the background.
struct Binder {
    shared: Arc<Shared>,
    client: Client,
    recorder: Recorder,
    stop: CancellationToken,
}

impl Binder {
    async fn bind(&self, pod: &Arc<PodInfo>, node: &str) {
        match post_binding(&self.client, pod, node).await {
            Ok(()) => {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.recorder.event(&*pod.pod, EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key, node, %error, "a binding failed");
                self.give_up(pod);
            }
        }
    }

    /// The pod has no node after all. One that is gone leaves the queue by its own event.
    fn give_up(&self, pod: &PodInfo) {
        self.shared.assumed.lock().remove(&pod.key);
        self.shared.snapshot.lock().remove_pod(&pod.key);
        self.shared.queue.retry(&pod.key);
    }
}

/// What is to be done about the pod's claims on its node; nothing when they are bound, or there are none.
pub(crate) fn decide(pod: &PodInfo, node: &str, snapshot: &mut Snapshot) -> Option<Decision> {
    let volumes = Volumes::new(pod, snapshot.storage()).ok()??;
    let decision = volumes.place(snapshot.node(node)?).ok()?;
    if volumes.is_bound() {
        return None;
    }
    snapshot.storage_mut().reserve(&decision, node);
    Some(decision)
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
