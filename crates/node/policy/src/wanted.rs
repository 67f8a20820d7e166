//! What the kernel should have: the chains and sets of policies and pods, and elements by how many want them.

use crate::facts::{Allowance, Direction, Peer, Policy};
use crate::plan::{ChainId, Changes, Element, Item, Line, Match, PolicyId, SetId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// What the kernel should have, with what it had for everything that was touched since changes were taken.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    sets: BTreeSet<SetId>,
    chains: BTreeMap<ChainId, Vec<Line>>,
    /// How many pairs want it.
    elements: HashMap<Element, u32>,
    old_sets: BTreeMap<SetId, bool>,
    old_chains: BTreeMap<ChainId, Option<Vec<Line>>>,
    old_elements: HashMap<Element, bool>,
}

impl Wanted {
    pub(crate) fn claim(&mut self, element: Element) {
        let count = self.elements.entry(element).or_default();
        self.old_elements.entry(element).or_insert(*count > 0);
        *count += 1;
    }

    pub(crate) fn release(&mut self, element: Element) {
        let Some(count) = self.elements.get_mut(&element) else { return };
        self.old_elements.entry(element).or_insert(true);
        *count -= 1;
        if *count == 0 {
            self.elements.remove(&element);
        }
    }

    /// An element that one thing alone wants.
    pub(crate) fn set_element(&mut self, element: Element, wanted: bool) {
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

    pub(crate) fn add_policy(&mut self, id: PolicyId, policy: &Policy) {
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

    pub(crate) fn remove_policy(&mut self, id: PolicyId, policy: &Policy, elements: impl Iterator<Item = Element>) {
        for direction in Direction::BOTH {
            let Some(rules) = policy.rules(direction) else { continue };
            for (n, rule) in rules.iter().enumerate() {
                let sets = RuleSets::of(id, direction, n, rule);
                for set in [sets.peers, sets.named].into_iter().flatten() {
                    self.set_set(set, false);
                }
            }
            self.set_chain(ChainId::Policy(id, direction), None);
        }
        for element in elements {
            self.release(element);
        }
    }

    pub(crate) fn isolate(&mut self, address: IpAddr, direction: Direction, policies: &BTreeSet<PolicyId>) {
        let chain = ChainId::Pod(address, direction);
        let lines: Vec<Line> = policies.iter().map(|id| Line::Jump(*id)).chain([Line::Drop]).collect();
        let lines = (!policies.is_empty()).then_some(lines);
        self.set_element((SetId::Isolated(direction), Item::Address(address)), lines.is_some());
        if self.chains.get(&chain) != lines.as_ref() {
            self.set_chain(chain, lines);
        }
    }

    pub(crate) fn take_changes(&mut self) -> Changes {
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

    pub(crate) fn everything(&mut self) -> Changes {
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
