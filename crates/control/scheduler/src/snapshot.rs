//! The nodes and what runs on them, kept up by single changes.

use crate::budgets::Budgets;
use crate::counts::{Counts, Kept, counts_the_same};
use crate::dra::Devices;
use crate::places::Places;
use crate::pod::PodInfo;
use crate::pods::Pods;
use crate::profile::Profile;
use crate::resources::Resources;
use crate::selectors::{Owner, Selectors};
use crate::spread::{HOSTNAME, ZONE};
use crate::storage::Storage;
use crate::terms::VARYING;
use crate::verdicts::Verdicts;
use crate::zones::{interleaved, zone};
use parking_lot::{Mutex, MutexGuard};
use pintle_types::k8s::api::core::v1::{Node, Service};
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use pintle_types::{Kind, ObjectKey};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

/// The labels of namespaces, by name.
pub(crate) type Namespaces = HashMap<String, BTreeMap<String, String>>;

/// A node and the pods that take of it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub name: String,
    /// Absent while pods are bound to a node that is not known (any more).
    pub node: Option<Arc<Node>>,
    pub allocatable: Resources,
    pub requested: Resources,
    /// Thousandths of a core and bytes, with defaults for containers that name nothing: used to score only.
    pub(crate) scored: (i64, i64),
    pub(crate) pods: Pods,
    /// What the pods of each priority take, the lowest priority first.
    pub(crate) taken: Vec<(i32, Resources)>,
    /// How many of the pods have terms of affinity to pods.
    pub(crate) with_terms: usize,
    pub(crate) marks: Marks,
}

/// What every pod asks of every node, kept where it is found at once: on a large cluster it is the memory that takes
/// the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) unschedulable: bool,
    pub(crate) tainted: bool,
    /// Whether it has the label of its host.
    pub(crate) host: bool,
    /// The label of its zone; nodes of one zone share it.
    pub(crate) zone: Option<Arc<str>>,
}

impl Marks {
    fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        Self {
            unschedulable: spec.and_then(|spec| spec.unschedulable) == Some(true),
            tainted: spec.and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| !taints.is_empty()),
            host: node.label(HOSTNAME).is_some(),
            zone: node.label(ZONE).map(Arc::from),
        }
    }
}

impl NodeInfo {
    /// A node on which nothing runs.
    pub(crate) fn alone(node: &Arc<Node>) -> Self {
        let mut info = Self::new(node.name());
        info.set_node(Arc::clone(node));
        info
    }

    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            allocatable: Resources::default(),
            requested: Resources::default(),
            scored: (0, 0),
            pods: Pods::default(),
            taken: Vec::new(),
            with_terms: 0,
            marks: Marks::default(),
        }
    }

    fn set_node(&mut self, node: Arc<Node>) {
        self.marks = Marks::of(&node);
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        self.allocatable = allocatable.map(Resources::from_map).unwrap_or_default();
        self.node = Some(node);
    }

    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.with_terms += usize::from(pod.terms.is_some());
        self.requested.add(&pod.requests);
        self.scored.0 += pod.scored.0;
        self.scored.1 += pod.scored.1;
        match self.taken.binary_search_by_key(&pod.priority, |(priority, _)| *priority) {
            Ok(place) => self.taken[place].1.add(&pod.requests),
            Err(place) => self.taken.insert(place, (pod.priority, pod.requests.clone())),
        }
        self.pods.add(pod);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        let Some(pod) = self.pods.remove(key) else { return };
        self.with_terms -= usize::from(pod.terms.is_some());
        self.requested.subtract(&pod.requests);
        self.scored.0 -= pod.scored.0;
        self.scored.1 -= pod.scored.1;
        if let Ok(place) = self.taken.binary_search_by_key(&pod.priority, |(priority, _)| *priority) {
            self.taken[place].1.subtract(&pod.requests);
            if self.taken[place].1.pods == 0 {
                self.taken.remove(place);
            }
        }
    }

    /// The lowest priority of the pods that run there.
    pub(crate) fn lowest_priority(&self) -> Option<i32> {
        self.taken.first().map(|(priority, _)| *priority)
    }

    /// Becomes a copy of another, in the memory that it has.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.name.clone_from(&other.name);
        self.node.clone_from(&other.node);
        self.allocatable.copy_from(&other.allocatable);
        self.requested.copy_from(&other.requested);
        self.pods.copy_from(&other.pods);
        self.taken.clone_from(&other.taken);
        (self.scored, self.with_terms) = (other.scored, other.with_terms);
        self.marks.clone_from(&other.marks);
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        if key == ZONE { self.marks.zone.as_deref() } else { self.node.as_ref()?.label(key) }
    }

    pub(crate) fn has_label(&self, key: &str) -> bool {
        if key == HOSTNAME { self.marks.host } else { self.label(key).is_some() }
    }
}

/// Where room is being made for a pod, and who was asked to leave: by key and uid.
#[derive(Debug)]
struct Nomination {
    node: String,
    victims: Vec<(ObjectKey, String)>,
}

/// All nodes. A change costs what changed.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    /// Of each node, which of all changes of nodes, of their pods and of promises was its last: no other state of any
    /// node ever has that number.
    changes: Vec<u64>,
    last_change: u64,
    /// The places of the nodes in the order in which they are looked at; worked out when it is asked for.
    order: OnceLock<Vec<usize>>,
    by_name: HashMap<String, usize>,
    /// Where each pod counts.
    pods: Places,
    /// Pods that wait for room on a node, with its name: they count when others of no higher priority are placed.
    nominated: HashMap<ObjectKey, Nomination>,
    /// The same, by the node.
    promised: HashMap<String, Vec<Arc<PodInfo>>>,
    /// How many of them have terms of affinity to pods, and how many by labels that vary within a kind of pods.
    promised_with_terms: usize,
    promised_varying: usize,
    namespaces: Namespaces,
    /// On how many nodes each image lies.
    images: HashMap<String, usize>,
    with_terms: usize,
    /// How many of their terms ask for each of the labels that vary within a kind of pods.
    varying: [usize; VARYING.len()],
    /// How many nodes can be chosen from.
    known: usize,
    storage: Storage,
    devices: Devices,
    selectors: Selectors,
    /// The zones that were ever seen.
    zones: HashSet<Arc<str>>,
    budgets: Budgets,
    /// Counted for a pod when it is scheduled, and kept for those like it.
    kept: Mutex<Kept>,
    verdicts: Mutex<Verdicts>,
}

impl Snapshot {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The places of the nodes, one of each zone in turn.
    pub(crate) fn order(&self) -> &[usize] {
        self.order.get_or_init(|| interleaved(&self.nodes))
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|i| &self.nodes[*i])
    }

    /// How many nodes can be chosen from.
    pub fn known_nodes(&self) -> usize {
        self.known
    }

    /// How many pods are on nodes.
    pub(crate) fn pods(&self) -> usize {
        self.pods.len()
    }

    /// The node that the pod counts on.
    pub(crate) fn node_of(&self, key: &ObjectKey) -> Option<&NodeInfo> {
        self.pods.get(key).map(|slot| &self.nodes[slot])
    }

    /// The pods of a namespace that count on nodes which are known, with these.
    pub(crate) fn pods_in(&self, namespace: &str) -> impl Iterator<Item = (&NodeInfo, &PodInfo)> {
        self.pods.in_namespace(namespace).filter_map(move |(name, slot)| {
            let node = self.nodes.get(slot).filter(|node| node.node.is_some())?;
            Some((node, &**node.pods.named(namespace, name)?))
        })
    }

    /// The place of a node among [`nodes`](Self::nodes).
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// What is counted of running pods for the pod, if anything.
    pub(crate) fn counts(&self, pod: &PodInfo, profile: &Arc<Profile>) -> Option<Arc<Counts>> {
        self.kept.lock().counts(pod, profile, self)
    }

    /// What is known of nodes for kinds of pods that fitted nowhere.
    pub(crate) fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock()
    }

    /// The last change of each node, which tells all states of nodes apart.
    pub(crate) fn changes(&self) -> &[u64] {
        &self.changes
    }

    /// Something of the node of that place is another from now on.
    fn touch(&mut self, slot: usize) {
        self.last_change += 1;
        self.changes[slot] = self.last_change;
    }

    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The budget as it is now; nothing when it is gone.
    pub fn set_budget(&mut self, key: &ObjectKey, budget: Option<Arc<PodDisruptionBudget>>) {
        self.budgets.set(key, budget);
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Claims, volumes and classes, to be kept up.
    pub fn storage_mut(&mut self) -> &mut Storage {
        &mut self.storage
    }

    pub(crate) fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Claims to devices, their classes and slices, to be kept up.
    pub fn devices_mut(&mut self) -> &mut Devices {
        &mut self.devices
    }

    pub(crate) fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// The Service as it is now; nothing when it is gone.
    pub fn set_service(&mut self, key: &ObjectKey, service: Option<Arc<Service>>) {
        let concerned = self.selectors.set_service(key, service);
        self.kept.get_mut().forget_defaults(concerned);
    }

    /// Somebody who makes pods, as it is now; or as it was, when it is not there any more.
    pub fn set_owner(&mut self, owner: Owner, there: bool) {
        let concerned = self.selectors.set_owner(owner, there);
        self.kept.get_mut().forget_defaults(concerned);
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    pub fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.kept.get_mut().forget();
        self.verdicts.get_mut().forget();
        self.namespaces.insert(name.to_owned(), labels);
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.kept.get_mut().forget();
        self.verdicts.get_mut().forget();
        self.namespaces.remove(name);
    }

    /// How many pods have terms of affinity to pods, those included that a node is promised to.
    pub(crate) fn with_terms(&self) -> usize {
        self.with_terms + self.promised_with_terms
    }

    /// Whether the terms of any pod that a node is promised to ask for labels that vary within a kind of pods.
    pub(crate) fn promised_ask_for_varying(&self) -> bool {
        self.promised_varying > 0
    }

    /// A node is promised to the pod (`comes`), or is no more.
    fn count_promised(&mut self, pod: &PodInfo, comes: bool) {
        let count = |count: &mut usize, counts: bool| match comes {
            true => *count += usize::from(counts),
            false => *count -= usize::from(counts),
        };
        count(&mut self.promised_with_terms, pod.terms.is_some());
        count(&mut self.promised_varying, pod.terms.as_ref().is_some_and(|terms| terms.varying() != 0));
    }

    fn count_varying(&mut self, pod: &PodInfo, comes: bool) {
        let bits = pod.terms.as_ref().map_or(0, |terms| terms.varying());
        for (_, count) in self.varying.iter_mut().enumerate().filter(|(i, _)| bits & (1 << i) != 0) {
            *count = if comes { *count + 1 } else { *count - 1 };
        }
    }

    /// Which of the labels that vary within a kind of pods any running pod's terms ask for, as bits.
    pub(crate) fn asks_for(&self) -> u8 {
        self.varying.iter().enumerate().filter(|(_, count)| **count > 0).fold(0, |bits, (i, _)| bits | 1 << i)
    }

    pub(crate) fn has_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// On how many nodes the image lies.
    pub(crate) fn nodes_with(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// Room is being made for the pod on that node.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        let known = self.nominated.get_mut(&pod.key).filter(|known| known.node == node);
        let victims = known.map(|known| std::mem::take(&mut known.victims)).unwrap_or_default();
        self.forget_nomination(&pod.key);
        self.nominated.insert(pod.key.clone(), Nomination { node: node.to_owned(), victims });
        self.count_promised(&pod, true);
        self.promised.entry(node.to_owned()).or_default().push(pod);
        if let Some(slot) = self.place(node) {
            self.touch(slot);
        }
    }

    /// These were asked to leave for the pod that is nominated.
    pub(crate) fn await_leaving(&mut self, pod: &ObjectKey, victims: &[Arc<PodInfo>]) {
        if let Some(nomination) = self.nominated.get_mut(pod) {
            nomination.victims = victims.iter().map(|v| (v.key.clone(), v.pod.uid().to_owned())).collect();
        }
    }

    /// Whether somebody who was asked to leave for the pod is still seen on its node: news come one by one.
    pub(crate) fn awaits_leaving(&self, pod: &ObjectKey) -> bool {
        let Some(nomination) = self.nominated.get(pod) else { return false };
        let Some(node) = self.node(&nomination.node) else { return false };
        nomination.victims.iter().any(|(key, uid)| node.pods.get(key).is_some_and(|there| there.pod.uid() == uid))
    }

    /// Returns whether room was being made for the pod.
    pub fn forget_nomination(&mut self, key: &ObjectKey) -> bool {
        let known = (!self.nominated.is_empty()).then(|| self.nominated.remove(key));
        let Some(Nomination { node, .. }) = known.flatten() else { return false };
        if let Some(pods) = self.promised.get_mut(&node) {
            let gone: Vec<Arc<PodInfo>> = pods.extract_if(.., |pod| pod.key == *key).collect();
            if pods.is_empty() {
                self.promised.remove(&node);
            }
            gone.iter().for_each(|pod| self.count_promised(pod, false));
        }
        if let Some(slot) = self.place(&node) {
            self.touch(slot);
        }
        true
    }

    /// The node that the pod was nominated for here, which its status may not say yet.
    pub(crate) fn nomination(&self, key: &ObjectKey) -> Option<&str> {
        self.nominated.get(key).map(|nomination| nomination.node.as_str())
    }

    pub(crate) fn has_nominated(&self) -> bool {
        !self.nominated.is_empty()
    }

    /// The pods that were promised room on the node.
    pub(crate) fn nominated_on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.promised.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    fn count_images(&mut self, node: &Node, present: bool) {
        let images = node.status.iter().flat_map(|s| s.images.iter().flatten());
        for name in images.flat_map(|i| i.names.iter().flatten()) {
            match self.images.get_mut(name) {
                Some(count) if present => *count += 1,
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => drop(self.images.remove(name)),
                None if present => drop(self.images.insert(name.clone(), 1)),
                None => {}
            }
        }
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        self.order = OnceLock::new();
        self.nodes.push(NodeInfo::new(name));
        self.changes.push(0);
        self.by_name.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let slot = self.slot(node.name());
        let old = self.nodes[slot].node.clone();
        let same = |old: &Arc<Node>| {
            let [before, after] = [old, &node].map(|n| n.status.as_ref().and_then(|s| s.images.as_ref()));
            before == after
        };
        if !old.as_ref().is_some_and(same) {
            old.iter().for_each(|old| self.count_images(old, false));
            self.count_images(&node, true);
        }
        self.known += usize::from(old.is_none());
        if old.as_ref().is_none_or(|old| zone(old) != zone(&node)) {
            self.order = OnceLock::new();
        }
        let counted = |n: &Node| n.spec.as_ref().map(|s| (s.unschedulable, s.taints.clone()));
        if old.is_none_or(|old| old.metadata.labels != node.metadata.labels || counted(&old) != counted(&node)) {
            self.kept.get_mut().forget();
        }
        let zone = self.nodes[slot].marks.zone.take();
        self.nodes[slot].set_node(node);
        self.touch(slot);
        self.share_zone(slot, zone);
    }

    /// One text for all nodes of a zone, so that it is found in the same memory.
    fn share_zone(&mut self, slot: usize, before: Option<Arc<str>>) {
        let Some(zone) = self.nodes[slot].marks.zone.take() else { return };
        let known = before.filter(|before| *before == zone).or_else(|| self.zones.get(&zone).cloned());
        let shared = known.unwrap_or_else(|| {
            self.zones.insert(Arc::clone(&zone));
            zone
        });
        self.nodes[slot].marks.zone = Some(shared);
    }

    /// The node is gone; the pods that are bound to it still count there until they go too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(slot) = self.by_name.get(name).copied() {
            if let Some(old) = self.nodes[slot].node.take() {
                self.known -= 1;
                self.nodes[slot].marks = Marks::default();
                self.kept.get_mut().forget();
                self.count_images(&old, false);
            }
            self.touch(slot);
            self.drop_if_empty(slot);
        }
    }

    /// The pod counts on that node, wherever it counted before. Returns whether it counted anywhere.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) -> bool {
        self.forget_nomination(&pod.key);
        // Most news of a pod that runs change nothing of what is counted.
        if let Some(slot) = self.pods.get(&pod.key)
            && self.nodes[slot].name == node
            && let Some(old) = self.nodes[slot].pods.get_mut(&pod.key)
            && counts_the_same(old, &pod)
        {
            *old = pod;
            self.touch(slot);
            return true;
        }
        let known = self.remove_pod(&pod.key);
        self.with_terms += usize::from(pod.terms.is_some());
        self.count_varying(&pod, true);
        let slot = self.slot(node);
        self.pods.insert(&pod.key, slot);
        pod.claim_keys().for_each(|claim| self.storage.count_user(claim, 1));
        self.kept.get_mut().count(&self.nodes[slot], &pod, 1, &self.namespaces);
        self.nodes[slot].add(pod);
        self.touch(slot);
        known
    }

    /// Returns whether the pod counted on a node.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(slot) = self.pods.remove(key) else { return false };
        if let Some(pod) = self.nodes[slot].pods.get(key).cloned() {
            self.count_varying(&pod, false);
            pod.claim_keys().for_each(|claim| self.storage.count_user(claim, -1));
            self.kept.get_mut().count(&self.nodes[slot], &pod, -1, &self.namespaces);
        }
        let before = self.nodes[slot].with_terms;
        self.nodes[slot].remove(key);
        self.with_terms -= before - self.nodes[slot].with_terms;
        self.touch(slot);
        self.drop_if_empty(slot);
        true
    }

    fn drop_if_empty(&mut self, slot: usize) {
        if self.nodes[slot].node.is_some() || !self.nodes[slot].pods.is_empty() {
            return;
        }
        self.order = OnceLock::new();
        let gone = self.nodes.swap_remove(slot);
        self.changes.swap_remove(slot);
        self.by_name.remove(&gone.name);
        let Some(moved) = self.nodes.get(slot) else { return };
        self.by_name.insert(moved.name.clone(), slot);
        for pod in moved.pods.values() {
            self.pods.insert(&pod.key, slot);
        }
    }
}
