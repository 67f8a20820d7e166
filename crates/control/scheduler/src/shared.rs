//! What the scheduler knows, and how changes of objects come to it.

use crate::configuration::Configuration;
use crate::filter::Plugin;
use crate::hints::Event;
use crate::metrics::{Metrics, OfProfile, Waiting};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::queue::PodQueue;
use crate::snapshot::{NodeInfo, Snapshot};
use parking_lot::Mutex;
use pintle_informer::Change;
use pintle_types::k8s::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use pintle_types::k8s::api::storage::v1::StorageClass;
use pintle_types::{Kind, ObjectKey};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// What the handlers of changes and the loop share.
pub(crate) struct Shared {
    pub(crate) snapshot: Mutex<Snapshot>,
    /// Pods that were given a node that the API server has not confirmed yet.
    pub(crate) assumed: Mutex<HashSet<ObjectKey>>,
    pub(crate) queue: PodQueue,
    /// Pods that have gates.
    pub(crate) gated: Mutex<HashSet<ObjectKey>>,
    pub(crate) profiles: Vec<Ours>,
    /// Wakes those who wait for claims: a claim changed, or a pod that waited is gone.
    pub(crate) storage_changed: Notify,
    /// The first volume of a CSI driver was seen: limits of nodes matter from then on.
    pub(crate) csi_seen: Notify,
}

/// A profile with what is counted of it.
pub(crate) struct Ours {
    pub(crate) profile: Arc<Profile>,
    pub(crate) counts: Arc<OfProfile>,
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// What a pod without a node is to this scheduler.
enum Wish {
    /// Nothing: it asks for another, or is on its way out.
    None,
    Gated,
    Node,
}

impl Waiting for Shared {
    fn pending(&self) -> [usize; 4] {
        let [active, backoff, unschedulable] = self.queue.lengths();
        [active, backoff, unschedulable, self.gated.lock().len()]
    }

    fn refused(&self) -> Vec<(Plugin, String, usize)> {
        self.queue.refused().into_iter().map(|((plugin, profile), pods)| (plugin, profile, pods)).collect()
    }

    fn cached(&self) -> [usize; 3] {
        let snapshot = self.snapshot.lock();
        [snapshot.known_nodes(), snapshot.pods(), self.assumed.lock().len()]
    }
}

impl Shared {
    pub(crate) fn new(configuration: &Configuration, metrics: &Arc<Metrics>) -> Self {
        let ours = |profile: &Arc<Profile>| Ours { profile: Arc::clone(profile), counts: metrics.of(profile) };
        Self {
            snapshot: Mutex::default(),
            assumed: Mutex::default(),
            queue: PodQueue::new(configuration.backoff, Arc::clone(metrics)),
            gated: Mutex::default(),
            profiles: configuration.profiles.iter().map(ours).collect(),
            storage_changed: Notify::new(),
            csi_seen: Notify::new(),
        }
    }

    /// The profile that the pod asks for.
    pub(crate) fn ours(&self, pod: &PodInfo) -> Option<&Ours> {
        self.profiles.iter().find(|ours| ours.profile.name == pod.scheduler())
    }

    fn wish(&self, pod: &PodInfo) -> Wish {
        let gated = pod.spec().scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        match self.ours(pod) {
            None => Wish::None,
            Some(_) if pod.pod.is_deleting() || is_finished(&pod.pod) => Wish::None,
            Some(ours) if gated && ours.profile.gates => Wish::Gated,
            Some(_) => Wish::Node,
        }
    }

    /// Something changed; those whom it could help are wanted again.
    pub(crate) fn cluster_changed(&self, event: &Event) {
        self.queue.cluster_changed(event);
    }

    pub(crate) fn namespace_changed(&self, change: &Change<Namespace>) {
        let name = change.object().name();
        let Some(new) = change.new() else { return self.snapshot.lock().remove_namespace(name) };
        if change.old().is_some_and(|old| old.metadata.labels == new.metadata.labels) {
            return;
        }
        self.snapshot.lock().set_namespace(name, new.metadata.labels.clone().unwrap_or_default());
        self.queue.cluster_changed(&Event::NamespaceChanged);
    }

    pub(crate) fn claim_changed(&self, change: &Change<PersistentVolumeClaim>) {
        let key = change.object().key();
        self.snapshot.lock().storage_mut().set_claim(&key, change.new().cloned());
        if change.new().is_some() {
            self.queue.cluster_changed(&Event::ClaimChanged(key));
        }
        self.storage_changed.notify_waiters();
    }

    pub(crate) fn volume_changed(&self, change: &Change<PersistentVolume>) {
        self.snapshot.lock().storage_mut().set_volume(change.object().name(), change.new().cloned());
        if change.new().and_then(|volume| volume.spec.as_ref()).is_some_and(|spec| spec.csi.is_some()) {
            self.csi_seen.notify_one();
        }
        if change.new().is_some() {
            self.queue.cluster_changed(&Event::StorageChanged);
        }
    }

    pub(crate) fn class_changed(&self, change: &Change<StorageClass>) {
        self.snapshot.lock().storage_mut().set_class(change.object().name(), change.new().cloned());
        let same = |old: &Arc<StorageClass>, new: &Arc<StorageClass>| old.allowed_topologies == new.allowed_topologies;
        match (change.old(), change.new()) {
            (_, None) => {}
            (Some(old), Some(new)) if same(old, new) => {}
            _ => self.queue.cluster_changed(&Event::StorageChanged),
        }
    }

    pub(crate) fn node_changed(&self, change: &Change<Node>) {
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
    pub(crate) fn pod_changed(&self, change: &Change<Pod>) {
        let key = change.object().key();
        let Some(pod) = change.new().filter(|pod| !is_finished(pod)) else {
            if self.assumed.lock().remove(&key) {
                self.storage_changed.notify_waiters();
            }
            self.queue.remove(&key);
            self.gated.lock().remove(&key);
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
            return;
        }
        let wish = self.wish(&info);
        let gated = matches!(wish, Wish::Gated);
        if gated || !self.gated.lock().is_empty() {
            let mut all = self.gated.lock();
            if gated {
                all.insert(key.clone())
            } else {
                all.remove(&key)
            };
        }
        if !matches!(wish, Wish::Node) {
            self.queue.remove(&key);
            self.snapshot.lock().forget_nomination(&key);
        } else if !self.assumed.lock().contains(&key) {
            self.wants_a_node(change, info);
        }
    }

    fn wants_a_node(&self, change: &Change<Pod>, info: Arc<PodInfo>) {
        let told = |pod: &Pod| pod.status.as_ref().and_then(|s| s.nominated_node_name.clone());
        if change.old().is_none_or(|old| told(old) != told(&info.pod)) {
            let mut snapshot = self.snapshot.lock();
            match info.nominated() {
                Some(node) => snapshot.nominate(Arc::clone(&info), node),
                None => drop(snapshot.forget_nomination(&info.key)),
            }
        }
        self.queue.add(info);
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
