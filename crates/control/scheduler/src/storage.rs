//! Claims, volumes and classes as the scheduler sees them, with the choices that the API server does not know yet.

use crate::limits::Limits;
use pintle_storage::{BOUND, SELECTED_NODE, requested};
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::{CSIStorageCapacity, StorageClass};
use pintle_types::quantity::Quantity;
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What is there of storage. A change costs what changed; a cluster without claims has nothing here.
#[derive(Debug, Default)]
pub struct Storage {
    claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    volumes: HashMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    /// Volumes that were chosen for a claim, by name.
    promised: HashMap<String, ObjectKey>,
    /// The nodes where volumes for claims are to be made.
    chosen: HashMap<ObjectKey, String>,
    /// What the drivers of each node say that it takes.
    limits: HashMap<String, Limits>,
    /// Drivers that count the room that they have, and what they say of it.
    counting: HashSet<String>,
    capacities: HashMap<ObjectKey, Arc<CSIStorageCapacity>>,
    /// How many pods that have a node use each claim.
    users: HashMap<ObjectKey, i64>,
}

/// What is to be done about a pod's claims before it is bound to a node.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// Volumes that are there, each for a claim.
    pub(crate) bindings: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>)>,
    /// Claims whose volumes are to be made on the node.
    pub(crate) provisions: Vec<Arc<PersistentVolumeClaim>>,
}

/// Whether the binding of a claim is complete.
pub(crate) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    named.is_some_and(|name| !name.is_empty()) && claim.annotation(BOUND).is_some()
}

/// The largest volume that there is room for, in billionths of a byte.
pub(crate) fn limit(capacity: &CSIStorageCapacity) -> Option<i128> {
    let largest = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref())?;
    Some(largest.0.parse::<Quantity>().ok()?.nanos())
}

impl Storage {
    pub(crate) fn claim(&self, key: &ObjectKey) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(key)
    }

    pub(crate) fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(name)
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(name)
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        self.volumes.values()
    }

    /// Whether a volume was chosen for another claim.
    pub(crate) fn is_promised(&self, volume: &str, but_for: &ObjectKey) -> bool {
        self.promised.get(volume).is_some_and(|claim| claim != but_for)
    }

    /// The node where the volume of a claim is, or is going to be, made.
    pub(crate) fn chosen_node<'a>(&'a self, claim: &'a PersistentVolumeClaim) -> Option<&'a str> {
        let here = self.chosen.get(&claim.key()).map(String::as_str);
        here.or_else(|| claim.annotation(SELECTED_NODE)).filter(|node| !node.is_empty())
    }

    /// How many pods that have a node use a claim.
    pub(crate) fn users(&self, claim: &ObjectKey) -> i64 {
        self.users.get(claim).copied().unwrap_or(0)
    }

    /// A pod that uses the claim got a node (`by` is 1) or left it (-1).
    pub(crate) fn count_user(&mut self, claim: ObjectKey, by: i64) {
        let count = self.users.entry(claim.clone()).or_default();
        *count += by;
        if *count <= 0 {
            self.users.remove(&claim);
        }
    }

    /// The claim as it is now; nothing when it is gone.
    pub fn set_claim(&mut self, key: &ObjectKey, claim: Option<Arc<PersistentVolumeClaim>>) {
        match claim {
            Some(claim) => drop(self.claims.insert(key.clone(), claim)),
            None => drop(self.claims.remove(key)),
        }
    }

    /// The volume as it is now; nothing when it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<PersistentVolume>>) {
        match volume {
            Some(volume) => drop(self.volumes.insert(name.to_owned(), volume)),
            None => drop(self.volumes.remove(name)),
        }
    }

    /// The class as it is now; nothing when it is gone.
    pub fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) {
        match class {
            Some(class) => drop(self.classes.insert(name.to_owned(), class)),
            None => drop(self.classes.remove(name)),
        }
    }

    pub(crate) fn limits(&self, node: &str) -> Option<&Limits> {
        self.limits.get(node)
    }

    /// What a node's drivers say that it takes now.
    pub(crate) fn set_limits(&mut self, node: &str, limits: Limits) {
        if limits.is_empty() {
            drop(self.limits.remove(node))
        } else {
            drop(self.limits.insert(node.to_owned(), limits))
        }
    }

    /// Whether a driver counts the room that it has; one that does not has room everywhere.
    pub fn set_counting(&mut self, driver: &str, counts: bool) {
        if counts {
            self.counting.insert(driver.to_owned());
        } else {
            self.counting.remove(driver);
        }
    }

    /// What a driver says of its room in one place now; nothing when that is gone.
    pub fn set_capacity(&mut self, key: &ObjectKey, capacity: Option<Arc<CSIStorageCapacity>>) {
        match capacity {
            Some(capacity) => drop(self.capacities.insert(key.clone(), capacity)),
            None => drop(self.capacities.remove(key)),
        }
    }

    /// The places where a volume of the class could be made for the claim; nothing when that is not counted.
    pub(crate) fn rooms(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<Vec<LabelSelector>> {
        let size = requested(claim);
        if size == 0 || !self.counting.contains(&class.provisioner) {
            return None;
        }
        let of_class = self.capacities.values().filter(|capacity| capacity.storage_class_name == class.name());
        let large = of_class.filter(|capacity| limit(capacity).is_some_and(|limit| limit >= size));
        // Nowhere is a place, too.
        let places = large.filter_map(|capacity| capacity.node_topology.as_ref());
        Some(places.map(|topology| LabelSelector::from_typed(Some(topology))).collect())
    }

    /// The choices count from now on, until they are released.
    pub(crate) fn reserve(&mut self, decision: &Decision, node: &str) {
        for (claim, volume) in &decision.bindings {
            self.promised.insert(volume.name().to_owned(), claim.key());
        }
        for claim in &decision.provisions {
            self.chosen.insert(claim.key(), node.to_owned());
        }
    }

    /// The API server knows of the choices by now, or they are void.
    pub(crate) fn release(&mut self, decision: &Decision) {
        for (_, volume) in &decision.bindings {
            self.promised.remove(volume.name());
        }
        for claim in &decision.provisions {
            self.chosen.remove(&claim.key());
        }
    }
}
