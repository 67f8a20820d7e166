//! Finds devices on a node for claims: the first way that meets all of them, in the order of pools, slices and devices.
//!
//! Source: KEP-4381 (structured parameters), KEP-4816 (alternatives), KEP-4815 (counters), KEP-5055 (taints). Pure: the
//! same claims, devices and node give the same allocation.

use super::asked::{MOST_DEVICES, Way, ways};
use super::capacity::{Amounts, fit, nanos};
use super::constraint::Constraint;
use super::devices::{Devices, Use, View, device_is_for};
use super::{result, selector};
use crate::snapshot::NodeInfo;
use pintle_cel::Value;
use pintle_types::Kind;
use pintle_types::k8s::api::resource::v1::{AllocationResult, Device, DeviceTaint, ResourceClaim, ResourceSlice};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Devices that one search looks at before it gives up: every combination may have to be tried.
const MOST_STEPS: usize = 100_000;

/// Why claims can't be allocated, other than for want of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Pools of the node contradict themselves; other nodes may do.
    InvalidPools,
    /// Nobody knows: there are too many combinations.
    TooLong,
    /// Something is wrong with the claims or their classes. Upstream's words.
    Wrong(String),
}

/// A device that may be chosen.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) pool: usize,
    pub(super) slice: &'a ResourceSlice,
    pub(super) device: &'a Device,
}

/// A device that was chosen.
pub(super) struct Chosen {
    pub(super) request: usize,
    pub(super) way: usize,
    pub(super) candidate: usize,
    /// What is taken of a device that others may share.
    pub(super) consumed: Option<Amounts>,
    counted: bool,
}

/// A claim, the ways to meet each of its requests, and nothing of what is tried.
pub(super) struct Asked<'a> {
    pub(super) claim: &'a ResourceClaim,
    pub(super) requests: Vec<Vec<Way<'a>>>,
}

/// Which way of which request of which claim.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct At {
    claim: usize,
    request: usize,
    way: usize,
}

/// The allocations of claims that have none, in their order; nothing when the node has not got the devices.
pub(crate) fn allocate(
    node: &NodeInfo,
    claims: &[&ResourceClaim],
    devices: &Devices,
) -> Result<Option<Vec<AllocationResult>>, Failure> {
    let views = devices.gather(node);
    let mut asked = Vec::new();
    for claim in claims {
        let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
        let requests: Result<Vec<_>, _> = requests.map(|request| ways(claim, request, devices)).collect();
        asked.push(Asked { claim, requests: requests.map_err(Failure::Wrong)? });
    }
    let candidates = candidates(&views);
    let mut search = Search::new(node, devices, &views, &candidates, &asked)?;
    search.find_everything()?;
    if search.meet(0, 0)? {
        let done = std::mem::take(&mut search.chosen);
        let built = asked.iter().zip(&done).map(|(asked, chosen)| result::build(node, asked, chosen, &candidates));
        return built.collect::<Result<Vec<_>, _>>().map(Some).map_err(Failure::Wrong);
    }
    if views.iter().all(|view| view.valid) { Ok(None) } else { Err(Failure::InvalidPools) }
}

/// The devices of the pools that can be relied on.
fn candidates<'a>(views: &[View<'a>]) -> Vec<Candidate<'a>> {
    let mut out = Vec::new();
    for (pool, view) in views.iter().enumerate().filter(|(_, view)| view.complete && view.valid) {
        for slice in &view.here {
            let devices = slice.spec.devices.iter().flatten();
            out.extend(devices.map(|device| Candidate { pool, slice, device }));
        }
    }
    // Pools whose devices have to be waited for come after all others.
    let waits = |candidate: &Candidate<'_>| candidate.device.binding_conditions.as_ref().is_some_and(|c| !c.is_empty());
    let slow: BTreeSet<usize> = out.iter().filter(|it| waits(it)).map(|it| it.pool).collect();
    out.sort_by_key(|candidate| slow.contains(&candidate.pool));
    out
}

struct Search<'s, 'a> {
    node: &'s NodeInfo,
    devices: &'a Devices,
    views: &'s [View<'a>],
    candidates: &'s [Candidate<'a>],
    asked: &'s [Asked<'a>],
    constraints: Vec<Vec<Constraint<'a>>>,
    /// The devices of those ways that want all.
    everything: HashMap<At, Vec<usize>>,
    /// What was found of devices: it does not depend on what is chosen.
    matched: HashMap<(At, usize), bool>,
    values: HashMap<usize, Value<'a>>,
    /// What is left of each pool's counters without what is chosen here.
    available: HashMap<usize, BTreeMap<(&'a str, &'a str), i128>>,
    counted: HashMap<(usize, &'a str, &'a str), i128>,
    chosen: Vec<Vec<Chosen>>,
    steps: usize,
}

impl<'s, 'a> Search<'s, 'a> {
    fn new(
        node: &'s NodeInfo,
        devices: &'a Devices,
        views: &'s [View<'a>],
        candidates: &'s [Candidate<'a>],
        asked: &'s [Asked<'a>],
    ) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for asked in asked {
            let constraints = asked.claim.spec.devices.iter().flat_map(|d| d.constraints.iter().flatten());
            let parsed = constraints.enumerate().map(|(i, constraint)| {
                let key = asked.claim.key();
                let unknown =
                    || format!("claim {key}, constraint #{i}: empty constraint (unsupported constraint type?)");
                Constraint::new(constraint).ok_or_else(|| Failure::Wrong(unknown()))
            });
            all.push(parsed.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Self {
            node,
            devices,
            views,
            candidates,
            asked,
            constraints: all,
            everything: HashMap::new(),
            matched: HashMap::new(),
            values: HashMap::new(),
            available: HashMap::new(),
            counted: HashMap::new(),
            chosen: asked.iter().map(|_| Vec::new()).collect(),
            steps: 0,
        })
    }

    /// Every way of every request.
    fn places(&self) -> Vec<At> {
        let mut out = Vec::new();
        for (claim, asked) in self.asked.iter().enumerate() {
            for (request, ways) in asked.requests.iter().enumerate() {
                out.extend((0..ways.len()).map(|way| At { claim, request, way }));
            }
        }
        out
    }

    fn way(&self, at: At) -> &'s Way<'a> {
        &self.asked[at.claim].requests[at.request][at.way]
    }

    /// How much "all" is; and whether each claim can be written down at all.
    fn find_everything(&mut self) -> Result<(), Failure> {
        for at in self.places() {
            let way = self.way(at);
            if !way.all {
                continue;
            }
            let whose = format!("claim {}, request {}", self.asked[at.claim].claim.key(), way.own_name());
            if let Some(view) = self.views.iter().find(|view| !(view.complete && view.valid)) {
                let state = if view.complete { "invalid" } else { "being updated" };
                let words =
                    format!("{whose}: asks for all devices, but resource pool {} is currently {state}", view.id);
                return Err(Failure::Wrong(words));
            }
            let mut all = Vec::new();
            for candidate in 0..self.candidates.len() {
                self.step()?;
                if self.matches(at, candidate)? && self.fit(at, candidate).is_some() {
                    all.push(candidate);
                }
            }
            self.everything.insert(at, all);
        }
        for (claim, asked) in self.asked.iter().enumerate() {
            let fewest = |(request, ways): (usize, &Vec<Way<'_>>)| {
                (0..ways.len()).map(|way| self.wanted(At { claim, request, way })).min().unwrap_or(0)
            };
            let least: usize = asked.requests.iter().enumerate().map(fewest).fold(0, usize::saturating_add);
            if least > MOST_DEVICES {
                let words = format!(
                    "claim {}: number of requested devices {least} exceeds the claim limit of {MOST_DEVICES}",
                    asked.claim.key()
                );
                return Err(Failure::Wrong(words));
            }
        }
        Ok(())
    }

    fn wanted(&self, at: At) -> usize {
        self.everything.get(&at).map_or(self.way(at).count, Vec::len)
    }

    fn step(&mut self) -> Result<(), Failure> {
        self.steps += 1;
        if self.steps > MOST_STEPS { Err(Failure::TooLong) } else { Ok(()) }
    }

    /// Meets this request and all after it.
    fn meet(&mut self, claim: usize, request: usize) -> Result<bool, Failure> {
        let asked = self.asked;
        let Some(of_claim) = asked.get(claim) else { return Ok(true) };
        let Some(ways) = of_claim.requests.get(request) else { return self.meet(claim + 1, 0) };
        for way in 0..ways.len() {
            if self.fill(At { claim, request, way }, 0, 0)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Chooses the `nth` device of a way and all that comes after it. The order of one way's devices doesn't matter:
    /// only those from `start` on are tried.
    fn fill(&mut self, at: At, nth: usize, start: usize) -> Result<bool, Failure> {
        let (way, wanted) = (self.way(at), self.wanted(at));
        if way.all && wanted == 0 {
            return Ok(false);
        }
        if nth >= wanted {
            return self.meet(at.claim, at.request + 1);
        }
        if self.chosen[at.claim].len() + wanted - nth > MOST_DEVICES {
            return Ok(false);
        }
        if way.all {
            let only = self.everything[&at][nth];
            return self.try_one(at, nth, only, true);
        }
        for candidate in start..self.candidates.len() {
            self.step()?;
            if !self.is_taken(at, candidate)
                && self.matches(at, candidate)?
                && self.try_one(at, nth, candidate, false)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn try_one(&mut self, at: At, nth: usize, candidate: usize, must: bool) -> Result<bool, Failure> {
        if self.is_taken(at, candidate) || !self.take(at, candidate, must)? {
            return Ok(false);
        }
        if self.fill(at, nth + 1, candidate + 1)? {
            return Ok(true);
        }
        self.give_back(at);
        Ok(false)
    }

    fn uses(&self, candidate: usize) -> Option<&'a Use> {
        let candidate = &self.candidates[candidate];
        self.views[candidate.pool].uses?.get(&candidate.device.name)
    }

    /// Its driver's, and those that rules put on it.
    fn taints(&self, candidate: usize) -> impl Iterator<Item = &'a DeviceTaint> {
        let Candidate { pool, device, .. } = self.candidates[candidate];
        device.taints.iter().flatten().chain(self.devices.ruled_taints(self.views[pool].id, &device.name))
    }

    fn is_shareable(&self, candidate: usize) -> bool {
        self.candidates[candidate].device.allow_multiple_allocations == Some(true)
    }

    /// Whether somebody has the device for himself. An administrator minds only his own claim's devices.
    fn is_taken(&self, at: At, candidate: usize) -> bool {
        let has = |chosen: &Vec<Chosen>| chosen.iter().any(|c| c.candidate == candidate && c.consumed.is_none());
        if self.way(at).admin {
            return has(&self.chosen[at.claim]);
        }
        self.uses(candidate).is_some_and(|uses| uses.whole > 0) || self.chosen.iter().any(has)
    }

    /// Whether the device is one that is asked for.
    fn matches(&mut self, at: At, index: usize) -> Result<bool, Failure> {
        if let Some(known) = self.matched.get(&(at, index)) {
            return Ok(*known);
        }
        let found = self.holds(at, index).map_err(Failure::Wrong)?;
        self.matched.insert((at, index), found);
        Ok(found)
    }

    fn holds(&mut self, at: At, index: usize) -> Result<bool, String> {
        let (candidate, way) = (&self.candidates[index], self.way(at));
        let (slice, device) = (candidate.slice, candidate.device);
        if slice.spec.per_device_node_selection == Some(true) && !device_is_for(self.node, device) {
            return Ok(false);
        }
        let id = || format!("{}/{}", self.views[candidate.pool].id, device.name);
        let of_class = way.class.spec.selectors.as_deref().unwrap_or_default();
        if of_class.is_empty() && way.selectors.is_empty() {
            return Ok(true);
        }
        let value = match self.values.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(
                selector::value(&slice.spec.driver, device).map_err(|error| format!("device {}: {error}", id()))?,
            ),
        };
        let selectors = &self.devices.selectors;
        let whose = [format!("class {}", way.class.name()), format!("claim {}", self.asked[at.claim].claim.key())];
        Ok(selectors.all_match(of_class, value, &whose[0], &id)?
            && selectors.all_match(way.selectors, value, &whose[1], &id)?)
    }

    /// What would be taken of the device's capacities; nothing when that is more than is left.
    fn fit(&self, at: At, candidate: usize) -> Option<Amounts> {
        let here = self.chosen.iter().flatten().filter(|chosen| chosen.candidate == candidate);
        let used = |name: &str| {
            let before = self.uses(candidate).and_then(|uses| uses.consumed.get(name)).copied().unwrap_or(0);
            let here = here.clone().filter_map(|chosen| chosen.consumed.as_ref()?.get(name));
            before + here.sum::<i128>()
        };
        fit(self.way(at).capacity, self.candidates[candidate].device.capacity.as_ref(), used)
    }

    /// Chooses the device when nothing is against it.
    fn take(&mut self, at: At, index: usize, must: bool) -> Result<bool, Failure> {
        let (way, device) = (self.way(at), self.candidates[index].device);
        let Some(consumed) = self.fit(at, index) else { return Ok(false) };
        if self.taints(index).any(|taint| !way.tolerates(taint)) {
            return Ok(false);
        }
        let shareable = self.is_shareable(index);
        let shared_already = shareable
            && (self.uses(index).is_some_and(|uses| uses.parts > 0)
                || self.chosen.iter().flatten().any(|chosen| chosen.candidate == index));
        let counts = !shared_already && device.consumes_counters.as_ref().is_some_and(|counters| !counters.is_empty());
        if counts && !self.has_counters(index) {
            return Ok(false);
        }
        let driver = &self.candidates[index].slice.spec.driver;
        for i in 0..self.constraints[at.claim].len() {
            if self.constraints[at.claim][i].add(way.request, way.alternative, device, driver) {
                continue;
            }
            for before in &mut self.constraints[at.claim][..i] {
                before.remove(way.request, way.alternative);
            }
            if must {
                let key = self.asked[at.claim].claim.key();
                let (name, id) =
                    (way.own_name(), format!("{}/{}", self.views[self.candidates[index].pool].id, device.name));
                return Err(Failure::Wrong(format!(
                    "claim {key}, request {name}: cannot add device {id} because a claim constraint would not be satisfied"
                )));
            }
            return Ok(false);
        }
        if counts {
            self.count(index, 1);
        }
        let consumed = shareable.then_some(consumed);
        let (request, way) = (at.request, at.way);
        self.chosen[at.claim].push(Chosen { request, way, candidate: index, consumed, counted: counts });
        Ok(true)
    }

    /// As if the claim's last device had not been chosen.
    fn give_back(&mut self, at: At) {
        let Some(last) = self.chosen[at.claim].pop() else { return };
        let way = self.way(at);
        self.constraints[at.claim].iter_mut().for_each(|constraint| constraint.remove(way.request, way.alternative));
        if last.counted {
            self.count(last.candidate, -1);
        }
    }

    fn count(&mut self, index: usize, by: i128) {
        let candidate = &self.candidates[index];
        for consumed in candidate.device.consumes_counters.iter().flatten() {
            for (name, counter) in &consumed.counters {
                let key = (candidate.pool, consumed.counter_set.as_str(), name.as_str());
                *self.counted.entry(key).or_default() += by * nanos(&counter.value);
            }
        }
    }

    /// Whether the counters have what the device takes of them.
    fn has_counters(&mut self, index: usize) -> bool {
        let candidate = &self.candidates[index];
        let view = &self.views[candidate.pool];
        let available = self.available.entry(candidate.pool).or_insert_with(|| left(view));
        candidate.device.consumes_counters.iter().flatten().all(|consumed| {
            consumed.counters.iter().all(|(name, counter)| {
                let (set, name) = (consumed.counter_set.as_str(), name.as_str());
                let here = self.counted.get(&(candidate.pool, set, name)).copied().unwrap_or(0);
                available.get(&(set, name)).is_none_or(|left| here + nanos(&counter.value) <= *left)
            })
        })
    }
}

/// What allocated devices leave of a pool's counters.
fn left<'a>(view: &View<'a>) -> BTreeMap<(&'a str, &'a str), i128> {
    let mut out = BTreeMap::new();
    for set in view.all.iter().flat_map(|slice| slice.spec.shared_counters.iter().flatten()) {
        for (name, counter) in &set.counters {
            out.insert((set.name.as_str(), name.as_str()), nanos(&counter.value));
        }
    }
    let Some(uses) = view.uses else { return out };
    let devices = view.all.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
    for device in devices.filter(|device| uses.contains_key(&device.name)) {
        for consumed in device.consumes_counters.iter().flatten() {
            for (name, counter) in &consumed.counters {
                if let Some(left) = out.get_mut(&(consumed.counter_set.as_str(), name.as_str())) {
                    *left -= nanos(&counter.value);
                }
            }
        }
    }
    out
}
