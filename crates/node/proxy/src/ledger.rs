//! What the kernel has for every service, and what the next transaction changes about it.

use crate::plan::{Chain, Element, Map, ServiceRules, Socket, Target};
use pintle_types::ObjectKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What each service has. Two services can want one element (the same external address and port): the first one has
/// it, and the second one gets it when the first one lets go.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    services: HashMap<ObjectKey, ServiceRules>,
    claims: HashMap<Element, Vec<(ObjectKey, Target)>>,
    /// Hairpin elements in the kernel that no service wants any more. A packet that was led to an endpoint just before
    /// that one went must still find its element, or it meets itself under its own address and its connection hangs.
    /// They say nothing that is not always right, so they stay until there are many, or no service at all.
    lingering: BTreeSet<Element>,
}

/// Elements that linger, at most.
const MAX_LINGERING: usize = 4096;

/// The changes of one transaction, in the order in which they have to be made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) new_sets: BTreeMap<Arc<str>, u64>,
    pub(crate) new_chains: BTreeMap<Arc<str>, Chain>,
    /// Chains that are there and get other rules.
    pub(crate) changed_chains: BTreeMap<Arc<str>, Chain>,
    /// With what they held.
    pub(crate) gone_elements: Vec<(Element, Target)>,
    pub(crate) new_elements: Vec<(Element, Target)>,
    pub(crate) gone_chains: BTreeSet<Arc<str>>,
    pub(crate) gone_sets: BTreeSet<Arc<str>>,
    /// Endpoints that datagrams must not be led to any more.
    pub(crate) gone_datagram_endpoints: BTreeSet<Socket>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Ledger {
    /// Gives services new rules (or none) and tells what changes for the kernel.
    pub(crate) fn replace(&mut self, services: Vec<(ObjectKey, Option<ServiceRules>)>) -> Changes {
        let mut changes = Changes::default();
        // What touched elements held before, so that one that changes hands within the transaction changes once.
        let mut before: HashMap<Element, Option<Target>> = HashMap::new();
        for (key, wanted) in services {
            let old = self.services.remove(&key).unwrap_or_default();
            let new = wanted.unwrap_or_default();
            if old == new {
                self.keep(key, new);
                continue;
            }
            compare_chains(&old, &new, &mut changes);
            compare_sets(&old, &new, &mut changes);
            let stay: BTreeSet<&Socket> = new.datagram_endpoints.iter().collect();
            let gone = old.datagram_endpoints.iter().filter(|socket| !stay.contains(socket));
            changes.gone_datagram_endpoints.extend(gone);
            for (element, _) in old.elements.iter().chain(&new.elements) {
                before.entry(*element).or_insert_with(|| self.holder(element).cloned());
            }
            self.move_claims(&key, &old, &new);
            self.keep(key, new);
        }
        for (element, old) in before {
            let new = self.holder(&element).cloned();
            if old != new {
                changes.gone_elements.extend(old.map(|old| (element, old)));
                changes.new_elements.extend(new.map(|new| (element, new)));
            }
        }
        self.linger(&mut changes);
        changes
    }

    /// Leaves hairpin elements in the kernel that would go, and takes them up again where they are wanted anew.
    fn linger(&mut self, changes: &mut Changes) {
        changes.new_elements.retain(|(element, _)| !self.lingering.remove(element));
        let (lingering, gone) = changes.gone_elements.drain(..).partition(|(element, _)| element.0 == Map::Hairpin);
        changes.gone_elements = gone;
        let lingering: Vec<(Element, Target)> = lingering;
        self.lingering.extend(lingering.into_iter().map(|(element, _)| element));
        if self.lingering.len() > MAX_LINGERING || self.services.is_empty() {
            let all = std::mem::take(&mut self.lingering);
            changes.gone_elements.extend(all.into_iter().map(|element| (element, Target::Present)));
        }
    }

    /// Everything, for a table that begins empty.
    pub(crate) fn everything(&mut self) -> Changes {
        let mut changes = Changes::default();
        self.lingering.clear();
        for rules in self.services.values() {
            changes.new_sets.extend(rules.sets.clone());
            changes.new_chains.extend(rules.chains.clone());
        }
        let held = self.claims.iter().filter_map(|(element, claims)| Some((*element, claims.first()?.1.clone())));
        changes.new_elements = held.collect();
        changes
    }

    fn keep(&mut self, key: ObjectKey, rules: ServiceRules) {
        if rules != ServiceRules::default() {
            self.services.insert(key, rules);
        }
    }

    fn holder(&self, element: &Element) -> Option<&Target> {
        self.claims.get(element)?.first().map(|(_, target)| target)
    }

    /// A service keeps its place in the queue for an element that it goes on wanting.
    fn move_claims(&mut self, key: &ObjectKey, old: &ServiceRules, new: &ServiceRules) {
        let wanted: HashMap<&Element, &Target> =
            new.elements.iter().map(|(element, target)| (element, target)).collect();
        for (element, _) in old.elements.iter().filter(|(element, _)| !wanted.contains_key(element)) {
            if let Some(claims) = self.claims.get_mut(element) {
                claims.retain(|(holder, _)| holder != key);
                if claims.is_empty() {
                    self.claims.remove(element);
                }
            }
        }
        for (element, target) in wanted {
            // Hardly any element is wanted twice, and there are many: a vector by itself begins with room for four.
            let claims = self.claims.entry(*element).or_insert_with(|| Vec::with_capacity(1));
            match claims.iter_mut().find(|(holder, _)| holder == key) {
                Some((_, held)) => *held = target.clone(),
                None => claims.push((key.clone(), target.clone())),
            }
        }
    }
}

fn compare_chains(old: &ServiceRules, new: &ServiceRules, changes: &mut Changes) {
    for (name, chain) in &new.chains {
        match old.chains.get(name) {
            None => drop(changes.new_chains.insert(name.clone(), chain.clone())),
            Some(known) if known != chain => drop(changes.changed_chains.insert(name.clone(), chain.clone())),
            Some(_) => {}
        }
    }
    changes.gone_chains.extend(old.chains.keys().filter(|name| !new.chains.contains_key(*name)).cloned());
}

/// A set whose timeout changes is kept: the time of each client comes from the rule that adds it.
fn compare_sets(old: &ServiceRules, new: &ServiceRules, changes: &mut Changes) {
    let missing = new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name));
    changes.new_sets.extend(missing.map(|(name, timeout)| (name.clone(), *timeout)));
    changes.gone_sets.extend(old.sets.keys().filter(|name| !new.sets.contains_key(*name)).cloned());
}
