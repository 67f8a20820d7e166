//! Says what the kernel should have, and what each change of a policy, pod or namespace changes about that.
//!
//! Pure: no IO, no time. Everything in the kernel follows from the pairs of an active policy (one that selects a pod of
//! this node) with a pod: each pair adds elements to the policy's sets, and an element is there while any pair wants it.

use crate::facts::{Allowance, Direction, Labels, Peer, Pod, Policy, PortRange, Protocol};
use crate::wanted::Wanted;
use ipnet::IpNet;
use pintle_types::ObjectKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
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
    Address(IpAddr),
    Socket(IpAddr, Protocol, u16),
}

pub(crate) type Element = (SetId, Item);

/// A chain of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ChainId {
    Policy(PolicyId, Direction),
    Pod(IpAddr, Direction),
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
    pub(crate) block: Option<(IpNet, Vec<IpNet>)>,
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
    local: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// Local addresses that something happened to since changes were taken.
    touched: BTreeSet<IpAddr>,
    /// The policies of isolated addresses.
    isolated: BTreeMap<(IpAddr, Direction), BTreeSet<PolicyId>>,
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
        self.touched.extend(affected);
    }

    /// Forgets a policy; the chains of its pods are made anew after it.
    fn retire(&mut self, key: &ObjectKey) {
        let Some(known) = self.policies.remove(key) else { return };
        if known.users > 0 {
            let elements = known.cells.into_values().flatten();
            self.wanted.remove_policy(known.id, &known.policy, elements);
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
        self.touched.extend(affected);
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
        self.settle();
        self.wanted.take_changes()
    }

    /// Everything, for a table that begins empty.
    pub(crate) fn everything(&mut self) -> Changes {
        self.settle();
        self.wanted.everything()
    }

    /// Decides once about every address that anything happened to.
    fn settle(&mut self) {
        for address in std::mem::take(&mut self.touched) {
            self.isolate(address);
        }
    }

    fn local_addresses_in(&self, namespace: &str) -> Vec<IpAddr> {
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
    fn isolate(&mut self, address: IpAddr) {
        let holders = self.local.get(&address).cloned().unwrap_or_default();
        if holders.is_empty() {
            self.local.remove(&address);
        }
        for direction in Direction::BOTH {
            let selecting = self.selecting(&holders, direction);
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

    fn selecting(&self, holders: &BTreeSet<ObjectKey>, direction: Direction) -> BTreeSet<ObjectKey> {
        let mut found = BTreeSet::new();
        for (holder, pod) in holders.iter().filter_map(|holder| Some((holder, self.pods.get(holder)?))) {
            let first = ObjectKey::new(&holder.namespace, "");
            let inside = self.policies.range(first..).take_while(|(key, _)| key.namespace == holder.namespace);
            let selecting = inside.filter(|(_, known)| {
                known.policy.rules(direction).is_some() && known.policy.selector.matches(&pod.labels)
            });
            found.extend(selecting.map(|(key, _)| key.clone()));
        }
        found
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
            if !elements.is_empty() {
                known.replace_cell(pod_key, elements, &mut self.wanted);
            }
        }
    }

    fn dismiss(&mut self, id: PolicyId) {
        // One that is not known any more took everything with it.
        let Some(known) = self.policies.values_mut().find(|known| known.id == id) else { return };
        known.users -= 1;
        if known.users == 0 {
            let elements = std::mem::take(&mut known.cells).into_values().flatten();
            self.wanted.remove_policy(known.id, &known.policy, elements);
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

fn in_blocks(rule: &Allowance, address: IpAddr) -> bool {
    rule.peers.iter().flatten().any(|peer| match peer {
        Peer::Block { net, except } => net.contains(&address) && !except.iter().any(|net| net.contains(&address)),
        Peer::Pods { .. } => false,
    })
}
