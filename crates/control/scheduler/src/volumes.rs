//! What a pod's volumes ask of nodes: upstream's VolumeBinding, VolumeRestrictions and VolumeZone.

use crate::affinity::term_matches;
use crate::filter::Plugin;
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;
use crate::storage::{Decision, Storage, is_bound};
use pintle_storage::{best, class_of_claim, is_pods_own, requested, waits_for_consumer};
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use pintle_types::k8s::api::storage::v1::StorageClass;
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;

/// Labels by which volumes and nodes say where they are.
const ZONES: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
/// Older volumes name several zones in one label.
const ZONE_DELIMITER: &str = "__";

/// Why no node at all will do; upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) plugin: Plugin,
    pub(crate) message: String,
}

/// What VolumeBinding has against a node, as bits.
pub(crate) const AFFINITY_CONFLICT: u8 = 1;
pub(crate) const NOTHING_TO_BIND: u8 = 1 << 1;
pub(crate) const NO_VOLUME: u8 = 1 << 2;
pub(crate) const NO_SPACE: u8 = 1 << 3;

/// Upstream's words for the bits.
pub(crate) fn words(bits: u8) -> impl Iterator<Item = &'static str> {
    [
        (AFFINITY_CONFLICT, "node(s) didn't match PersistentVolume's node affinity"),
        (NOTHING_TO_BIND, "node(s) didn't find available persistent volumes to bind"),
        (NO_SPACE, "node(s) did not have enough free storage"),
        (NO_VOLUME, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
    ]
    .into_iter()
    .filter_map(move |(bit, words)| (bits & bit != 0).then_some(words))
}

/// A claim that gets its volume with the pod's node.
#[derive(Clone, Debug)]
struct Unbound {
    claim: Arc<PersistentVolumeClaim>,
    class: Arc<StorageClass>,
    /// Where its volume is being made already.
    node: Option<String>,
    /// Volumes that could be it.
    candidates: Vec<Arc<PersistentVolume>>,
    /// Where the driver has room for one; nothing where it does not count its room.
    rooms: Option<Vec<LabelSelector>>,
}

impl Unbound {
    /// Whether the claim's volume can be made on the node; else what is against it.
    fn made_on(&self, node: &NodeInfo) -> Result<(), u8> {
        if !provides(&self.class, node) {
            return Err(NOTHING_TO_BIND);
        }
        let here = |room: &LabelSelector| room.matches_with(|key| node.label(key));
        if self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(here)) { Ok(()) } else { Err(NO_SPACE) }
    }
}

/// The claims of one pod, looked up once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volumes {
    bound: Vec<Arc<PersistentVolume>>,
    /// Whether a bound claim's volume is gone.
    missing: bool,
    /// The smaller first: they must not take what only the larger could use.
    unbound: Vec<Unbound>,
    /// Claims that only one pod may use, and how many do.
    exclusive: Vec<ObjectKey>,
    others: i64,
}

impl Volumes {
    /// Nothing for a pod without claims.
    pub(crate) fn new(pod: &PodInfo, storage: &Storage) -> Result<Option<Self>, Rejection> {
        if pod.claims.is_empty() {
            return Ok(None);
        }
        let reject = |message: String| Rejection { plugin: Plugin::VolumeBinding, message };
        let mut claims = Vec::new();
        for used in &pod.claims {
            claims.push(usable(pod, &used.name, used.ephemeral, storage).map_err(reject)?);
        }
        let mut volumes = Self::default();
        for claim in claims {
            volumes.sort_in(claim, storage).map_err(reject)?;
        }
        volumes.unbound.sort_by_key(|unbound| requested(&unbound.claim));
        Ok(Some(volumes))
    }

    fn sort_in(&mut self, claim: &Arc<PersistentVolumeClaim>, storage: &Storage) -> Result<(), String> {
        let spec = claim.spec.as_ref();
        let modes = spec.and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        if modes.iter().any(|mode| mode == "ReadWriteOncePod") {
            self.others += storage.users(&claim.key());
            self.exclusive.push(claim.key());
        }
        let name = spec.and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        if is_bound(claim) {
            match storage.volume(name) {
                Some(volume) => self.bound.push(Arc::clone(volume)),
                None => self.missing = true,
            }
            return Ok(());
        }
        let class = storage.class(class_of_claim(claim)).filter(|class| waits_for_consumer(class));
        // Whose volume a person named is bound without us.
        let Some(class) = class.filter(|_| name.is_empty()) else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        };
        let node = storage.chosen_node(claim).map(str::to_owned);
        let candidates = if node.is_some() { Vec::new() } else { candidates(claim, storage) };
        let rooms = storage.rooms(claim, class);
        self.unbound.push(Unbound { claim: Arc::clone(claim), class: Arc::clone(class), node, candidates, rooms });
        Ok(())
    }

    /// As if a pod came to its node (`by` is 1) or left it (-1).
    pub(crate) fn count(&mut self, running: &PodInfo, by: i64) {
        if self.exclusive.is_empty() {
            return;
        }
        let uses = running.claim_keys().filter(|key| self.exclusive.contains(key)).count();
        self.others += by * uses as i64;
    }

    /// Whether another pod uses a claim that only one may use.
    pub(crate) fn is_taken(&self) -> bool {
        self.others > 0
    }

    /// What is against the node, in bits; or what is to be done for the pod to run there.
    pub(crate) fn place(&self, node: &NodeInfo) -> Result<Decision, u8> {
        let mut bits = if self.missing { NO_VOLUME } else { 0 };
        if !self.bound.iter().all(|volume| is_reachable(volume, node)) {
            bits |= AFFINITY_CONFLICT;
        }
        let mut decision = Decision::default();
        for unbound in &self.unbound {
            if unbound.node.as_ref().is_some_and(|chosen| *chosen != node.name) {
                return Err(bits | NOTHING_TO_BIND);
            }
            let taken =
                |volume: &Arc<PersistentVolume>| decision.bindings.iter().any(|(_, it)| Arc::ptr_eq(it, volume));
            let here = unbound.candidates.iter().filter(|volume| is_reachable(volume, node) && !taken(volume));
            let here: Vec<Arc<PersistentVolume>> = here.cloned().collect();
            if let Some(volume) = best(&unbound.claim, &here, false) {
                decision.bindings.push((Arc::clone(&unbound.claim), volume));
            } else if bits & (NOTHING_TO_BIND | NO_SPACE) == 0 {
                // The first claim that gets none tells why.
                match unbound.made_on(node) {
                    Ok(()) => decision.provisions.push(Arc::clone(&unbound.claim)),
                    Err(bit) => bits |= bit,
                }
            }
        }
        if bits == 0 { Ok(decision) } else { Err(bits) }
    }

    /// Whether nothing is to be done for any of the claims.
    pub(crate) fn is_bound(&self) -> bool {
        self.unbound.is_empty()
    }

    /// Whether every volume that says where it is, is where the node is.
    pub(crate) fn is_in_zone(&self, node: &NodeInfo) -> bool {
        // A node that doesn't say where it is may be anywhere.
        if !ZONES.iter().any(|key| node.label(key).is_some()) {
            return true;
        }
        let in_zone = |volume: &Arc<PersistentVolume>| {
            ZONES.iter().all(|key| match volume.label(key) {
                Some(zones) => node.label(key).is_some_and(|own| zones.split(ZONE_DELIMITER).any(|zone| zone == own)),
                None => true,
            })
        };
        self.bound.iter().all(in_zone)
    }
}

/// The claim, if a pod can wait for it or use it.
fn usable<'a>(
    pod: &PodInfo,
    name: &str,
    ephemeral: bool,
    storage: &'a Storage,
) -> Result<&'a Arc<PersistentVolumeClaim>, String> {
    let Some(claim) = storage.claim(&ObjectKey::new(pod.key.namespace.as_str(), name)) else {
        let message = format!("persistentvolumeclaim \"{name}\" not found");
        let waiting = "waiting for ephemeral volume controller to create the persistentvolumeclaim";
        return Err(if ephemeral { format!("{waiting} \"{name}\"") } else { message });
    };
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        return Err(format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""));
    }
    if claim.is_deleting() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    if ephemeral && !is_pods_own(claim, &pod.pod) {
        return Err(format!("PVC {} was not created for pod {} (pod is not owner)", claim.key(), pod.key));
    }
    Ok(claim)
}

fn candidates(claim: &PersistentVolumeClaim, storage: &Storage) -> Vec<Arc<PersistentVolume>> {
    let key = claim.key();
    // The best one alone tells whether there are any: most classes have none that are free.
    let free = storage.volumes().filter(|volume| !storage.is_promised(volume.name(), &key));
    let suits = |volume: &&Arc<PersistentVolume>| best(claim, std::slice::from_ref(*volume), false).is_some();
    free.filter(suits).cloned().collect()
}

fn is_reachable(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let required = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// Whether volumes of the class can be made on the node.
fn provides(class: &StorageClass, node: &NodeInfo) -> bool {
    if class.provisioner.is_empty() || class.provisioner == "kubernetes.io/no-provisioner" {
        return false;
    }
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let met = |term: &pintle_types::k8s::api::core::v1::TopologySelectorTerm| {
        let mut wanted = term.match_label_expressions.iter().flatten();
        wanted.all(|wanted| node.label(&wanted.key).is_some_and(|own| wanted.values.iter().any(|value| value == own)))
    };
    terms.is_empty() || terms.iter().any(met)
}

/// Whether the pod has disks that may be one pod's alone.
pub(crate) fn has_disks(pod: &PodInfo) -> bool {
    pod.spec().volumes.as_deref().unwrap_or_default().iter().any(is_disk)
}

/// Whether a pod that runs on the node has a disk that the pod's volumes can't share with it.
pub(crate) fn disk_is_taken(pod: &PodInfo, node: &NodeInfo) -> bool {
    has_disks(pod) && node.pods.values().any(|running| disks_conflict(pod, running))
}

/// Whether two pods have a disk that they can't share.
pub(crate) fn disks_conflict(pod: &PodInfo, other: &PodInfo) -> bool {
    let [own, others] = [pod, other].map(|pod| pod.spec().volumes.as_deref().unwrap_or_default());
    own.iter().filter(|volume| is_disk(volume)).any(|volume| others.iter().any(|other| conflicts(volume, other)))
}

fn is_disk(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.iscsi.is_some()
        || volume.rbd.is_some()
}

fn conflicts(volume: &Volume, other: &Volume) -> bool {
    let read_only = |a: Option<bool>, b: Option<bool>| a == Some(true) && b == Some(true);
    if let (Some(a), Some(b)) = (&volume.gce_persistent_disk, &other.gce_persistent_disk) {
        return a.pd_name == b.pd_name && !read_only(a.read_only, b.read_only);
    }
    if let (Some(a), Some(b)) = (&volume.aws_elastic_block_store, &other.aws_elastic_block_store) {
        return a.volume_id == b.volume_id;
    }
    if let (Some(a), Some(b)) = (&volume.iscsi, &other.iscsi) {
        return a.iqn == b.iqn && !read_only(a.read_only, b.read_only);
    }
    if let (Some(a), Some(b)) = (&volume.rbd, &other.rbd) {
        let pool = |pool: &Option<String>| pool.clone().unwrap_or_else(|| "rbd".to_owned());
        let shared_monitor = a.monitors.iter().any(|monitor| b.monitors.contains(monitor));
        return shared_monitor
            && a.image == b.image
            && pool(&a.pool) == pool(&b.pool)
            && !read_only(a.read_only, b.read_only);
    }
    false
}
