//! Says what the kernel should have, and what each change of a policy, pod or namespace changes about that.
//!
//! Pure: no IO, no time. Everything in the kernel follows from the pairs of an active policy (one that selects a pod of
//! this node) with a pod: each pair adds elements to the policy's sets, and an element is there while any pair wants it.

use crate::facts::{Allowance, Direction, Labels, Peer, Pod, Policy, PortRange, Protocol};
use ipnet::Ipv4Net;
use pintle_types::ObjectKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Numbers policies: their names can be longer than those of chains.
pub(crate) type PolicyId = u32;

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SetId {
    /// Address → the chain of an isolated pod.
    Isolated(Direction),
    /// Isolated addresses, each twice: nothing keeps a pod from itself.
    Own,
    /// Addresses of the pods that a rule allows.
    Peers(PolicyId, Direction, usize),
    /// Address, protocol, port of the destinations that a rule's named ports mean.
    Named(PolicyId, Direction, usize),
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Item {
    Address(Ipv4Addr),
    Socket(Ipv4Addr, Protocol, u16),
}

pub(crate) type Element = (SetId, Item);

/// A chain of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ChainId {
    Policy(PolicyId, Direction),
    Pod(Ipv4Addr, Direction),
}

/// One rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Accept(Match),
    Jump(PolicyId),
    Drop,
}

/// Which packets are accepted; everything that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) peers: Option<SetId>,
    pub(crate) block: Option<(Ipv4Net, Vec<Ipv4Net>)>,
    pub(crate) range: Option<PortRange>,
    pub(crate) named: Option<SetId>,
}

/// The changes of one transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) new_sets: BTreeSet<SetId>,
    pub(crate) gone_sets: BTreeSet<SetId>,
    pub(crate) new_chains: BTreeMap<ChainId, Vec<Line>>,
    pub(crate) changed_chains: BTreeMap<ChainId, Vec<Line>>,
    pub(crate) gone_chains: BTreeSet<ChainId>,
    pub(crate) new_elements: BTreeSet<Element>,
    pub(crate) gone_elements: BTreeSet<Element>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything that is known, and what the kernel should have because of it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    policies: BTreeMap<ObjectKey, Known>,
    latest: PolicyId,
    pods: HashMap<ObjectKey, Arc<Pod>>,
    namespaces: HashMap<String, Labels>,
    /// Local pods by address. Two have one for a moment, when a name or address is used anew.
    local: BTreeMap<Ipv4Addr, BTreeSet<ObjectKey>>,
    /// The policies of isolated addresses.
    isolated: BTreeMap<(Ipv4Addr, Direction), BTreeSet<PolicyId>>,
    wanted: Wanted,
}

#[derive(Debug)]
struct Known {
    id: PolicyId,
    policy: Arc<Policy>,
    /// How many local addresses it isolates, counted for each direction.
    users: usize,
    /// The elements of each pod.
    cells: HashMap<ObjectKey, Vec<Element>>,
}

impl Plan {
    pub(crate) fn has_policies(&self) -> bool {
        !self.policies.is_empty()
    }

    /// Whether a policy selects a local pod.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.isolated.is_empty()
    }

    pub(crate) fn set_policy(&mut self, key: &ObjectKey, policy: Option<Policy>) {
        let same = self.policies.get(key).map(|known| &*known.policy) == policy.as_ref();
        if same {
            return;
        }
        let affected = self.local_addresses_in(&key.namespace);
        if let Some(policy) = policy {
            // One that changed is a new one to the kernel: the old one's chains and sets go in the same step.
            self.retire(key);
            self.latest += 1;
            let known = Known { id: self.latest, policy: Arc::new(policy), users: 0, cells: HashMap::new() };
            self.policies.insert(key.clone(), known);
        } else {
            self.retire(key);
        }
        for address in affected {
            self.isolate(address);
        }
    }

    /// Forgets a policy; the chains of its pods are made anew after it.
    fn retire(&mut self, key: &ObjectKey) {
        let Some(known) = self.policies.remove(key) else { return };
        if known.users > 0 {
            self.wanted.remove_policy(&known);
        }
    }

    pub(crate) fn set_pod(&mut self, key: &ObjectKey, pod: Option<Pod>) {
        let pod = pod.filter(|pod| pod.local || !pod.addresses.is_empty());
        if self.pods.get(key).map(|known| &**known) == pod.as_ref() {
            return;
        }
        let mut affected = BTreeSet::new();
        for old in self.pods.remove(key).iter().filter(|old| old.local) {
            for address in &old.addresses {
                affected.insert(*address);
                if let Some(holders) = self.local.get_mut(address) {
                    holders.remove(key);
                }
            }
        }
        if let Some(pod) = pod {
            for address in pod.addresses.iter().filter(|_| pod.local) {
                affected.insert(*address);
                self.local.entry(*address).or_default().insert(key.clone());
            }
            self.pods.insert(key.clone(), Arc::new(pod));
        }
        self.refresh_pod(key);
        for address in affected {
            self.isolate(address);
        }
    }

    pub(crate) fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key).map(|pod| &**pod)
    }

    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        let inside: Vec<ObjectKey> = self.pods.keys().filter(|key| key.namespace == name).cloned().collect();
        for key in inside {
            self.refresh_pod(&key);
        }
    }

    /// What changed since it was asked last.
    pub(crate) fn take_changes(&mut self) -> Changes {
        self.wanted.take_changes()
    }

    /// Everything, for a table that begins empty.
    pub(crate) fn everything(&mut self) -> Changes {
        self.wanted.everything()
    }

    fn local_addresses_in(&self, namespace: &str) -> Vec<Ipv4Addr> {
        let inside = |holders: &BTreeSet<ObjectKey>| holders.iter().any(|key| key.namespace == namespace);
        self.local.iter().filter(|(_, holders)| inside(holders)).map(|(address, _)| *address).collect()
    }

    /// Brings the elements that a pod adds to active policies up to date.
    fn refresh_pod(&mut self, key: &ObjectKey) {
        let pod = self.pods.get(key).cloned();
        for (policy_key, known) in self.policies.iter_mut().filter(|(_, known)| known.users > 0) {
            let pair = Pair { known, policy_key, pod_key: key, namespaces: &self.namespaces };
            let new = pod.as_deref().map_or_else(Vec::new, |pod| pair.elements(pod));
            known.replace_cell(key, new, &mut self.wanted);
        }
    }

    /// Decides anew which policies isolate an address.
    fn isolate(&mut self, address: Ipv4Addr) {
        let holders = self.local.get(&address).cloned().unwrap_or_default();
        if holders.is_empty() {
            self.local.remove(&address);
        }
        for direction in Direction::BOTH {
            let selecting: Vec<ObjectKey> = self.selecting(&holders, direction);
            let new: BTreeSet<PolicyId> = selecting.iter().filter_map(|key| Some(self.policies.get(key)?.id)).collect();
            let old = self.isolated.remove(&(address, direction)).unwrap_or_default();
            for key in &selecting {
                if self.policies.get(key).is_some_and(|known| !old.contains(&known.id)) {
                    self.enlist(key);
                }
            }
            for gone in old.difference(&new) {
                self.dismiss(*gone);
            }
            self.wanted.isolate(address, direction, &new);
            if !new.is_empty() {
                self.isolated.insert((address, direction), new);
            }
        }
        let isolated = Direction::BOTH.iter().any(|direction| self.isolated.contains_key(&(address, *direction)));
        self.wanted.set_element((SetId::Own, Item::Address(address)), isolated);
    }

    fn selecting(&self, holders: &BTreeSet<ObjectKey>, direction: Direction) -> Vec<ObjectKey> {
        let selects = |key: &ObjectKey, known: &Known| {
            let mut inside = holders.iter().filter(|holder| holder.namespace == key.namespace);
            known.policy.rules(direction).is_some()
                && inside
                    .any(|holder| self.pods.get(holder).is_some_and(|pod| known.policy.selector.matches(&pod.labels)))
        };
        self.policies.iter().filter(|(key, known)| selects(key, known)).map(|(key, _)| key.clone()).collect()
    }

    /// One address more is isolated by a policy; the first one brings it into the kernel.
    fn enlist(&mut self, key: &ObjectKey) {
        let Some(known) = self.policies.get_mut(key) else { return };
        known.users += 1;
        if known.users > 1 {
            return;
        }
        self.wanted.add_policy(known.id, &known.policy);
        for (pod_key, pod) in &self.pods {
            let pair = Pair { known, policy_key: key, pod_key, namespaces: &self.namespaces };
            let elements = pair.elements(pod);
            known.replace_cell(pod_key, elements, &mut self.wanted);
        }
    }

    fn dismiss(&mut self, id: PolicyId) {
        // One that is not known any more took everything with it.
        let Some(known) = self.policies.values_mut().find(|known| known.id == id) else { return };
        known.users -= 1;
        if known.users == 0 {
            self.wanted.remove_policy(known);
            known.cells.clear();
        }
    }
}

impl Known {
    fn replace_cell(&mut self, pod: &ObjectKey, new: Vec<Element>, wanted: &mut Wanted) {
        for element in &new {
            wanted.claim(*element);
        }
        for element in self.cells.remove(pod).into_iter().flatten() {
            wanted.release(element);
        }
        if !new.is_empty() {
            self.cells.insert(pod.clone(), new);
        }
    }
}

/// A policy and a pod.
struct Pair<'a> {
    known: &'a Known,
    policy_key: &'a ObjectKey,
    pod_key: &'a ObjectKey,
    namespaces: &'a HashMap<String, Labels>,
}

impl Pair<'_> {
    /// The elements that a pod adds to the sets of the policy.
    fn elements(&self, pod: &Pod) -> Vec<Element> {
        let mut elements = Vec::new();
        if pod.addresses.is_empty() {
            return elements;
        }
        for direction in Direction::BOTH {
            for (n, rule) in self.known.policy.rules(direction).unwrap_or_default().iter().enumerate() {
                self.add(direction, n, rule, pod, &mut elements);
            }
        }
        elements.sort_unstable();
        elements.dedup();
        elements
    }

    fn add(&self, direction: Direction, n: usize, rule: &Allowance, pod: &Pod, elements: &mut Vec<Element>) {
        let id = self.known.id;
        let is_peer = rule.peers.iter().flatten().any(|peer| self.is_peer(peer, pod));
        if is_peer {
            let set = SetId::Peers(id, direction, n);
            elements.extend(pod.addresses.iter().map(|address| (set, Item::Address(*address))));
        }
        if rule.named_ports.is_empty() {
            return;
        }
        for address in &pod.addresses {
            // A name means a port of the pod that the packet goes to.
            let meant = match direction {
                Direction::Ingress => pod.local && self.selects(pod),
                Direction::Egress => is_peer || rule.peers.is_none() || in_blocks(rule, *address),
            };
            let found = pod.named_ports.iter().filter(|(protocol, name, _)| {
                meant && rule.named_ports.iter().any(|(wanted, by_name)| wanted == protocol && by_name == name)
            });
            let set = SetId::Named(id, direction, n);
            elements.extend(found.map(|(protocol, _, port)| (set, Item::Socket(*address, *protocol, *port))));
        }
    }

    fn selects(&self, pod: &Pod) -> bool {
        self.policy_key.namespace == self.pod_key.namespace && self.known.policy.selector.matches(&pod.labels)
    }

    fn is_peer(&self, peer: &Peer, pod: &Pod) -> bool {
        let Peer::Pods { namespaces, pods } = peer else { return false };
        let namespace = &self.pod_key.namespace;
        let inside = match namespaces {
            None => *namespace == self.policy_key.namespace,
            Some(selector) => self.namespaces.get(namespace).is_some_and(|labels| selector.matches(labels)),
        };
        inside && pods.matches(&pod.labels)
    }
}

fn in_blocks(rule: &Allowance, address: Ipv4Addr) -> bool {
    rule.peers.iter().flatten().any(|peer| match peer {
        Peer::Block { net, except } => net.contains(&address) && !except.iter().any(|net| net.contains(&address)),
        Peer::Pods { .. } => false,
    })
}

/// What the kernel should have, with what it had for everything that was touched since changes were taken.
#[derive(Debug, Default)]
struct Wanted {
    sets: BTreeSet<SetId>,
    chains: BTreeMap<ChainId, Vec<Line>>,
    /// How many pairs want it.
    elements: HashMap<Element, u32>,
    old_sets: BTreeMap<SetId, bool>,
    old_chains: BTreeMap<ChainId, Option<Vec<Line>>>,
    old_elements: HashMap<Element, bool>,
}

impl Wanted {
    fn claim(&mut self, element: Element) {
        let count = self.elements.entry(element).or_default();
        self.old_elements.entry(element).or_insert(*count > 0);
        *count += 1;
    }

    fn release(&mut self, element: Element) {
        let Some(count) = self.elements.get_mut(&element) else { return };
        self.old_elements.entry(element).or_insert(true);
        *count -= 1;
        if *count == 0 {
            self.elements.remove(&element);
        }
    }

    /// An element that one thing alone wants.
    fn set_element(&mut self, element: Element, wanted: bool) {
        match (self.elements.contains_key(&element), wanted) {
            (false, true) => self.claim(element),
            (true, false) => self.release(element),
            _ => {}
        }
    }

    fn set_set(&mut self, set: SetId, wanted: bool) {
        self.old_sets.entry(set).or_insert_with(|| self.sets.contains(&set));
        if wanted {
            self.sets.insert(set);
        } else {
            self.sets.remove(&set);
        }
    }

    fn set_chain(&mut self, chain: ChainId, lines: Option<Vec<Line>>) {
        let old = self.chains.remove(&chain);
        if let Some(lines) = lines {
            self.chains.insert(chain, lines);
        }
        self.old_chains.entry(chain).or_insert(old);
    }

    fn add_policy(&mut self, id: PolicyId, policy: &Policy) {
        for direction in Direction::BOTH {
            let Some(rules) = policy.rules(direction) else { continue };
            let mut lines = Vec::new();
            for (n, rule) in rules.iter().enumerate() {
                let sets = RuleSets::of(id, direction, n, rule);
                for set in [sets.peers, sets.named].into_iter().flatten() {
                    self.set_set(set, true);
                }
                sets.add_lines(direction, rule, &mut lines);
            }
            self.set_chain(ChainId::Policy(id, direction), Some(lines));
        }
    }

    fn remove_policy(&mut self, known: &Known) {
        for direction in Direction::BOTH {
            let Some(rules) = known.policy.rules(direction) else { continue };
            for (n, rule) in rules.iter().enumerate() {
                let sets = RuleSets::of(known.id, direction, n, rule);
                for set in [sets.peers, sets.named].into_iter().flatten() {
                    self.set_set(set, false);
                }
            }
            self.set_chain(ChainId::Policy(known.id, direction), None);
        }
        for element in known.cells.values().flatten() {
            self.release(*element);
        }
    }

    fn isolate(&mut self, address: Ipv4Addr, direction: Direction, policies: &BTreeSet<PolicyId>) {
        let chain = ChainId::Pod(address, direction);
        let lines: Vec<Line> = policies.iter().map(|id| Line::Jump(*id)).chain([Line::Drop]).collect();
        let lines = (!policies.is_empty()).then_some(lines);
        self.set_element((SetId::Isolated(direction), Item::Address(address)), lines.is_some());
        if self.chains.get(&chain) != lines.as_ref() {
            self.set_chain(chain, lines);
        }
    }

    fn take_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for (set, was) in std::mem::take(&mut self.old_sets) {
            match (was, self.sets.contains(&set)) {
                (false, true) => drop(changes.new_sets.insert(set)),
                (true, false) => drop(changes.gone_sets.insert(set)),
                _ => {}
            }
        }
        for (chain, was) in std::mem::take(&mut self.old_chains) {
            match (was, self.chains.get(&chain)) {
                (None, Some(lines)) => drop(changes.new_chains.insert(chain, lines.clone())),
                (Some(_), None) => drop(changes.gone_chains.insert(chain)),
                (Some(old), Some(lines)) if old != *lines => drop(changes.changed_chains.insert(chain, lines.clone())),
                _ => {}
            }
        }
        for (element, was) in std::mem::take(&mut self.old_elements) {
            match (was, self.elements.contains_key(&element)) {
                (false, true) => drop(changes.new_elements.insert(element)),
                // Those of a set that goes, go with it.
                (true, false) if !changes.gone_sets.contains(&element.0) => {
                    changes.gone_elements.insert(element);
                }
                _ => {}
            }
        }
        changes
    }

    fn everything(&mut self) -> Changes {
        self.take_changes();
        Changes {
            new_sets: self.sets.clone(),
            new_chains: self.chains.clone(),
            new_elements: self.elements.keys().copied().collect(),
            ..Changes::default()
        }
    }
}

/// The sets that one rule of a policy looks into.
struct RuleSets {
    peers: Option<SetId>,
    named: Option<SetId>,
}

impl RuleSets {
    fn of(id: PolicyId, direction: Direction, n: usize, rule: &Allowance) -> Self {
        let of_pods = rule.peers.iter().flatten().any(|peer| matches!(peer, Peer::Pods { .. }));
        Self {
            peers: of_pods.then_some(SetId::Peers(id, direction, n)),
            named: (!rule.named_ports.is_empty()).then_some(SetId::Named(id, direction, n)),
        }
    }

    /// One line for each peer and each range of ports.
    fn add_lines(&self, direction: Direction, rule: &Allowance, lines: &mut Vec<Line>) {
        let mut ends: Vec<Match> = Vec::new();
        match &rule.peers {
            None => ends.push(Match::default()),
            Some(peers) => {
                ends.extend(self.peers.map(|set| Match { peers: Some(set), ..Match::default() }));
                ends.extend(peers.iter().filter_map(|peer| match peer {
                    Peer::Block { net, except } => {
                        Some(Match { block: Some((*net, except.clone())), ..Match::default() })
                    }
                    Peer::Pods { .. } => None,
                }));
            }
        }
        for end in &ends {
            match &rule.ports {
                None => lines.push(Line::Accept(end.clone())),
                Some(ranges) => {
                    lines.extend(ranges.iter().map(|range| Line::Accept(Match { range: Some(*range), ..end.clone() })));
                }
            }
            if self.named.is_some() && direction == Direction::Ingress {
                lines.push(Line::Accept(Match { named: self.named, ..end.clone() }));
            }
        }
        // The destinations that names mean are peers already.
        if self.named.is_some() && direction == Direction::Egress {
            lines.push(Line::Accept(Match { named: self.named, ..Match::default() }));
        }
    }
}
