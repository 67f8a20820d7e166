//! Claims, classes and slices as the scheduler sees them, and which devices are taken.

use super::extended::{ANNOTATION, IMPLICIT};
use super::selector::Selectors;
use crate::affinity::term_matches;
use crate::snapshot::NodeInfo;
use pintle_devices::{is_about, repels, taint_of};
use pintle_types::k8s::api::core::v1::NodeSelector;
use pintle_types::k8s::api::resource::v1::{
    AllocationResult, Device, DeviceClass, DeviceTaint, ResourceClaim, ResourceSlice,
};
use pintle_types::k8s::api::resource::v1beta2::DeviceTaintRule;
use pintle_types::quantity::Quantity;
use pintle_types::{Kind, ObjectKey};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

/// A pool of a driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PoolId {
    pub(crate) driver: String,
    pub(crate) pool: String,
}

impl PoolId {
    fn of(slice: &ResourceSlice) -> Self {
        Self { driver: slice.spec.driver.clone(), pool: slice.spec.pool.name.clone() }
    }
}

impl std::fmt::Display for PoolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.driver, self.pool)
    }
}

/// How a device is taken by allocations.
#[derive(Debug, Default)]
pub(crate) struct Use {
    /// As a whole.
    pub(crate) whole: usize,
    /// By parts, and how much (in billionths) of each capacity.
    pub(crate) parts: usize,
    pub(crate) consumed: BTreeMap<String, i128>,
}

pub(crate) type Uses = HashMap<String, Use>;

/// The slices of a pool, and what they come to.
#[derive(Debug, Default)]
struct Pool {
    slices: BTreeMap<String, Arc<ResourceSlice>>,
    current: OnceLock<Current>,
}

/// The newest generation of a pool.
#[derive(Debug)]
struct Current {
    slices: Vec<Arc<ResourceSlice>>,
    complete: bool,
    valid: bool,
}

/// A pool as a node sees it.
pub(crate) struct View<'a> {
    pub(crate) id: &'a PoolId,
    /// All of the newest generation: counters are shared by all nodes.
    pub(crate) all: &'a [Arc<ResourceSlice>],
    /// Those that have devices for the node.
    pub(crate) here: Vec<&'a ResourceSlice>,
    /// Whether all slices of the generation are there, and make sense together.
    pub(crate) complete: bool,
    pub(crate) valid: bool,
    pub(crate) uses: Option<&'a Uses>,
}

/// What is there of devices. A change costs what changed; a cluster without claims has nothing here.
#[derive(Debug, Default)]
pub struct Devices {
    claims: HashMap<ObjectKey, Arc<ResourceClaim>>,
    classes: HashMap<String, Arc<DeviceClass>>,
    pools: BTreeMap<PoolId, Pool>,
    /// The pool of each slice, by the slice's name.
    places: HashMap<String, PoolId>,
    /// Pools that have slices of a node alone, with how many; and those that have slices for several nodes.
    local: HashMap<String, BTreeMap<PoolId, usize>>,
    shared: BTreeMap<PoolId, usize>,
    uses: HashMap<PoolId, Uses>,
    /// Allocations that the API server does not know yet, by the claim's uid; nothing once the claim tells of it.
    in_flight: HashMap<String, Option<AllocationResult>>,
    /// The classes of resources by the resource's name, and the claims for such resources by their pod's uid.
    resources: HashMap<String, String>,
    specials: HashMap<String, ObjectKey>,
    /// Allocations whose devices did not become usable in time, by the claim's uid.
    late: HashSet<String>,
    /// What an administrator taints devices with, by the rule's name: of rules only those that keep claims off.
    rules: BTreeMap<String, (Arc<DeviceTaintRule>, DeviceTaint)>,
    pub(crate) selectors: Selectors,
    /// Whether all that is there was seen.
    pub(crate) ready: bool,
}

fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// Whether a node is among those that something is there for. Nothing is known of a place that is not named.
pub(super) fn is_for(node: &NodeInfo, name: Option<&str>, all: Option<bool>, selector: Option<&NodeSelector>) -> bool {
    match (name.filter(|name| !name.is_empty()), all, selector) {
        (Some(name), ..) => name == node.name,
        (None, Some(true), _) => true,
        (None, _, Some(selector)) => selected(selector, node),
        _ => false,
    }
}

pub(super) fn selected(selector: &NodeSelector, node: &NodeInfo) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

pub(super) fn device_is_for(node: &NodeInfo, device: &Device) -> bool {
    is_for(node, device.node_name.as_deref(), device.all_nodes, device.node_selector.as_ref())
}

fn slice_is_for(node: &NodeInfo, slice: &ResourceSlice) -> bool {
    let spec = &slice.spec;
    if spec.per_device_node_selection == Some(true) {
        return spec.devices.iter().flatten().any(|device| device_is_for(node, device));
    }
    is_for(node, spec.node_name.as_deref(), spec.all_nodes, spec.node_selector.as_ref())
}

impl Current {
    fn of(slices: &BTreeMap<String, Arc<ResourceSlice>>) -> Self {
        let newest = slices.values().map(|slice| slice.spec.pool.generation).max().unwrap_or(0);
        let slices: Vec<Arc<ResourceSlice>> =
            slices.values().filter(|slice| slice.spec.pool.generation == newest).cloned().collect();
        let wanted = slices.first().map_or(0, |slice| slice.spec.pool.resource_slice_count);
        let complete = i64::try_from(slices.len()) == Ok(wanted);
        let (mut names, mut sets) = (HashSet::new(), HashSet::new());
        let counted = slices.iter().flat_map(|slice| slice.spec.shared_counters.iter().flatten());
        let mut valid = counted.map(|set| set.name.as_str()).all(|name| sets.insert(name));
        for device in slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten()) {
            let mut consumed = device.consumes_counters.iter().flatten();
            // What a set that is yet to come has, nobody knows; an incomplete pool is not looked at anyway.
            let known = !complete || consumed.all(|consumed| sets.contains(consumed.counter_set.as_str()));
            valid &= names.insert(device.name.as_str()) && known;
        }
        Self { complete, valid, slices }
    }
}

impl Devices {
    pub(crate) fn claim(&self, key: &ObjectKey) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(key)
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.classes.get(name)
    }

    /// Whether the claim's devices were chosen, and the API server does not know yet.
    pub(crate) fn is_in_flight(&self, claim: &ResourceClaim) -> bool {
        self.in_flight.contains_key(claim.uid())
    }

    /// The claim's devices did not become usable in time.
    pub(super) fn set_late(&mut self, claim: &ResourceClaim) {
        self.late.insert(claim.uid().to_owned());
    }

    /// Whether they did not, and are allocated still.
    pub(super) fn is_late(&self, claim: &ResourceClaim) -> bool {
        self.late.contains(claim.uid())
    }

    /// The class as it is now; nothing when it is gone.
    pub fn set_class(&mut self, name: &str, class: Option<Arc<DeviceClass>>) {
        match class {
            Some(class) => drop(self.classes.insert(name.to_owned(), class)),
            None => drop(self.classes.remove(name)),
        }
        // Of classes for one resource the newest counts; of equals the first by name.
        let mut all: Vec<(&String, &Arc<DeviceClass>)> = self.classes.iter().collect();
        let created = |class: &DeviceClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        all.sort_by(|(a, one), (b, other)| created(one).cmp(&created(other)).then_with(|| b.cmp(a)));
        let named =
            all.into_iter().filter_map(|(name, class)| Some((class.spec.extended_resource_name.clone()?, name)));
        self.resources = named.map(|(resource, name)| (resource, name.clone())).collect();
    }

    /// The class whose devices are a resource.
    pub(crate) fn class_of(&self, resource: &str) -> Option<&str> {
        if let Some(name) = resource.strip_prefix(IMPLICIT) {
            return self.classes.get_key_value(name).map(|(name, _)| name.as_str());
        }
        self.resources.get(resource).map(String::as_str)
    }

    /// The claim that was made for the resources of a pod.
    pub(super) fn special(&self, pod: &str) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(self.specials.get(pod)?)
    }

    /// The claim as it is now; nothing when it is gone. One that is older than what is known changes nothing.
    pub fn set_claim(&mut self, key: &ObjectKey, claim: Option<Arc<ResourceClaim>>) {
        let newer = |known: &Arc<ResourceClaim>, new: &Arc<ResourceClaim>| {
            known.uid() == new.uid() && known.version() > new.version()
        };
        if self.claims.get(key).zip(claim.as_ref()).is_some_and(|(known, new)| newer(known, new)) {
            return;
        }
        if let Some(old) = self.claims.remove(key)
            && let Some(result) = allocation(&old)
        {
            self.count(result, false);
            if claim.as_ref().is_none_or(|new| allocation(new).is_none() || new.uid() != old.uid()) {
                self.late.remove(old.uid());
            }
        }
        let Some(claim) = claim else { return self.specials.retain(|_, known| known != key) };
        if claim.annotation(ANNOTATION) == Some("true")
            && let Some(owner) = claim.metadata.owner_references.iter().flatten().find(|it| it.controller == Some(true))
        {
            self.specials.insert(owner.uid.clone(), key.clone());
        }
        if let Some(result) = allocation(&claim) {
            self.count(result, true);
            // From now on the claim itself says so.
            if let Some(sent) = self.in_flight.get_mut(claim.uid()).and_then(Option::take) {
                self.count(&sent, false);
            }
        }
        self.claims.insert(key.clone(), claim);
    }

    /// The devices are taken for the claim from now on, until that is released.
    pub(super) fn reserve(&mut self, claim: &ResourceClaim, result: &AllocationResult) {
        self.count(result, true);
        self.in_flight.insert(claim.uid().to_owned(), Some(result.clone()));
    }

    /// The API server knows of the allocation by now, or it is void.
    pub(super) fn release(&mut self, claim: &ResourceClaim) {
        if let Some(Some(sent)) = self.in_flight.remove(claim.uid()) {
            self.count(&sent, false);
        }
    }

    fn count(&mut self, result: &AllocationResult, taken: bool) {
        let devices = result.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        for device in devices.filter(|device| device.admin_access != Some(true)) {
            let pool = PoolId { driver: device.driver.clone(), pool: device.pool.clone() };
            let uses = self.uses.entry(pool.clone()).or_default();
            let entry = uses.entry(device.device.clone()).or_default();
            let count = if device.share_id.is_some() { &mut entry.parts } else { &mut entry.whole };
            *count = if taken { *count + 1 } else { count.saturating_sub(1) };
            for (name, amount) in device.consumed_capacity.iter().flatten() {
                let amount = Quantity::from(amount).nanos();
                *entry.consumed.entry(name.clone()).or_default() += if taken { amount } else { -amount };
            }
            if entry.whole + entry.parts == 0 {
                uses.remove(&device.device);
            }
            if uses.is_empty() {
                self.uses.remove(&pool);
            }
        }
    }

    /// The slice as it is now; nothing when it is gone.
    pub fn set_slice(&mut self, name: &str, slice: Option<Arc<ResourceSlice>>) {
        if let Some(id) = self.places.remove(name)
            && let Some(pool) = self.pools.get_mut(&id)
        {
            let old = pool.slices.remove(name);
            pool.current = OnceLock::new();
            if pool.slices.is_empty() {
                self.pools.remove(&id);
            }
            old.iter().for_each(|old| self.place(&id, old, false));
        }
        let Some(slice) = slice else { return };
        let id = PoolId::of(&slice);
        self.place(&id, &slice, true);
        self.places.insert(name.to_owned(), id.clone());
        let pool = self.pools.entry(id).or_default();
        pool.slices.insert(name.to_owned(), slice);
        pool.current = OnceLock::new();
    }

    /// The rule as it is now; nothing when it is gone.
    pub fn set_rule(&mut self, name: &str, rule: Option<Arc<DeviceTaintRule>>) {
        self.rules.remove(name);
        if let Some((rule, taint)) = rule.map(|rule| (Arc::clone(&rule), taint_of(&rule))).filter(|it| repels(&it.1)) {
            self.rules.insert(name.to_owned(), (rule, taint));
        }
    }

    /// How many rules keep claims off devices.
    #[cfg(test)]
    pub(super) fn rules(&self) -> usize {
        self.rules.len()
    }

    /// The taints that rules put on a device.
    pub(super) fn ruled_taints<'a>(
        &'a self,
        pool: &'a PoolId,
        device: &'a str,
    ) -> impl Iterator<Item = &'a DeviceTaint> {
        let about = move |rule: &DeviceTaintRule| is_about(rule, &pool.driver, &pool.pool, device);
        self.rules.values().filter(move |(rule, _)| about(rule)).map(|(_, taint)| taint)
    }

    /// Notes where the pool is to be looked for.
    fn place(&mut self, id: &PoolId, slice: &ResourceSlice, there: bool) {
        let node = slice.spec.node_name.as_deref().filter(|name| !name.is_empty());
        let pools = match node {
            Some(node) => self.local.entry(node.to_owned()).or_default(),
            None => &mut self.shared,
        };
        let count = pools.entry(id.clone()).or_default();
        *count = if there { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            pools.remove(id);
        }
        if let Some(node) = node.filter(|node| self.local.get(*node).is_some_and(BTreeMap::is_empty)) {
            self.local.remove(node);
        }
    }

    /// The pools that have devices for the node, in the order of their names.
    pub(super) fn gather(&self, node: &NodeInfo) -> Vec<View<'_>> {
        let local = self.local.get(&node.name).into_iter().flat_map(BTreeMap::keys);
        let ids: BTreeSet<&PoolId> = local.chain(self.shared.keys()).collect();
        let view = |id: &'_ PoolId| {
            let (id, pool) = self.pools.get_key_value(id)?;
            let current = pool.current.get_or_init(|| Current::of(&pool.slices));
            let here = current.slices.iter().filter(|slice| slice_is_for(node, slice));
            let here: Vec<&ResourceSlice> = here.map(|slice| &**slice).collect();
            let (complete, valid, uses) = (current.complete, current.valid, self.uses.get(id));
            (!here.is_empty()).then_some(View { id, all: &current.slices, here, complete, valid, uses })
        };
        ids.into_iter().filter_map(view).collect()
    }
}
