//! What the scheduler knows, and how changes of objects come to it.

use crate::configuration::Configuration;
use crate::dra::{claims_of, wants_claims};
use crate::filter::Plugin;
use crate::hints::Event;
use crate::metrics::{Metrics, OfProfile, Waiting};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::queue::PodQueue;
use crate::room::Room;
use crate::selectors::Owner;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::storage_capacity::may_be_counted;
use parking_lot::Mutex;
use pintle_informer::Change;
use pintle_types::k8s::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use pintle_types::k8s::api::storage::v1::StorageClass;
use pintle_types::{Kind, ObjectKey};
use std::collections::{HashMap, HashSet};
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
    /// Those of them that wait for claims to devices to be made.
    claimless: Mutex<HashMap<ObjectKey, Arc<PodInfo>>>,
    pub(crate) profiles: Vec<Ours>,
    /// Wakes those who wait for claims: a claim changed, or a pod that waited is gone.
    pub(crate) storage_changed: Notify,
    /// The first volume of a CSI driver was seen: limits of nodes matter from then on.
    pub(crate) csi_seen: Notify,
    /// The first class was seen whose volumes a CSI driver may make: its room matters from then on.
    pub(crate) provisioner_seen: Notify,
    /// The first pod that claims devices was seen: what there is of devices matters from then on.
    pub(crate) claims_seen: Notify,
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
    /// Claims of it are not there yet.
    Claims,
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
            provisioner_seen: Notify::new(),
            claims_seen: Notify::new(),
            claimless: Mutex::default(),
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
            Some(ours) if ours.profile.waits_for_claims && wants_claims(pod) => self.wish_with_claims(pod),
            Some(_) => Wish::Node,
        }
    }

    fn wish_with_claims(&self, pod: &PodInfo) -> Wish {
        let snapshot = self.snapshot.lock();
        let devices = snapshot.devices();
        if !devices.ready {
            self.claims_seen.notify_one();
        }
        let there = devices.ready && claims_of(pod, devices).is_ok();
        if there { Wish::Node } else { Wish::Claims }
    }

    /// Claims of the namespace, or of all, changed: pods may have what they waited for.
    pub(crate) fn claims_changed(&self, namespace: Option<&str>) {
        let mut waiting = self.claimless.lock();
        let concerned = |pod: &&Arc<PodInfo>| namespace.is_none_or(|namespace| pod.key.namespace == namespace);
        let wants = |pod: &&Arc<PodInfo>| matches!(self.wish(pod), Wish::Node);
        let free: Vec<Arc<PodInfo>> = waiting.values().filter(concerned).filter(wants).cloned().collect();
        for pod in free {
            waiting.remove(&pod.key);
            self.gated.lock().remove(&pod.key);
            self.queue.add(pod);
        }
    }

    /// What the pod is to this scheduler. One that waits for claims is kept for the news of them.
    fn take_in(&self, info: &Arc<PodInfo>) -> Wish {
        if !wants_claims(info) {
            return self.wish(info);
        }
        // Held while it is decided, so that no news of a claim comes in between.
        let mut waiting = self.claimless.lock();
        let wish = self.wish(info);
        match wish {
            Wish::Claims => drop(waiting.insert(info.key.clone(), Arc::clone(info))),
            _ => drop(waiting.remove(&info.key)),
        }
        wish
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

    pub(crate) fn service_changed(&self, change: &Change<Service>) {
        self.snapshot.lock().set_service(&change.object().key(), change.new().cloned());
    }

    /// A controller of pods changed: how they are spread by default follows from its selector.
    pub(crate) fn owner_changed<K: Kind>(&self, change: &Change<K>, wrap: fn(Arc<K>) -> Owner) {
        self.snapshot.lock().set_owner(wrap(Arc::clone(change.object())), change.new().is_some());
    }

    pub(crate) fn budget_changed(&self, change: &Change<PodDisruptionBudget>) {
        self.snapshot.lock().set_budget(&change.object().key(), change.new().cloned());
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
        if change.new().is_some_and(|class| may_be_counted(class)) {
            self.provisioner_seen.notify_one();
        }
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
            self.claimless.lock().remove(&key);
            return self.pod_gone(&key, change.object());
        };
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        if let Some(node) = node_name(pod) {
            self.assigned(change, &info, node);
            return;
        }
        let wish = self.take_in(&info);
        let gated = matches!(wish, Wish::Gated | Wish::Claims);
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
            let promised = self.snapshot.lock().forget_nomination(&key);
            if promised {
                self.promise_void(&info);
            }
        } else if !self.assumed.lock().contains(&key) {
            self.wants_a_node(change, info);
        }
    }

    fn pod_gone(&self, key: &ObjectKey, pod: &Arc<Pod>) {
        let mut snapshot = self.snapshot.lock();
        let node = snapshot.node_of(key).map(|node| node.name.clone());
        let counted = snapshot.remove_pod(key) | snapshot.forget_nomination(key);
        if !counted {
            return;
        }
        let left = node.filter(|_| self.queue.minds_changes());
        let left = left.and_then(|name| Some(Arc::new(Room::of(snapshot.node(&name)?, &snapshot))));
        drop(snapshot);
        self.queue.cluster_changed(&Event::PodGone(Arc::new(PodInfo::new(Arc::clone(pod))), left));
    }

    /// The room that was promised to the pod is anybody's.
    pub(crate) fn promise_void(&self, pod: &Arc<PodInfo>) {
        self.queue.cluster_changed(&Event::PodGone(Arc::clone(pod), None));
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
        if wants_claims(info) && self.claimless.lock().remove(&info.key).is_some() {
            self.gated.lock().remove(&info.key);
        }
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
