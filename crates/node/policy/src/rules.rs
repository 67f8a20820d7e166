//! The layout of the table: what chains and sets are called, and what their rules hold.
//!
//! ```text
//! forward: egress  ─▶ an answer, or a pod to itself: on │ by source: chain of the pod ─▶ its policies │ drop
//!          ingress ─▶ the same, by destination
//! ```
//!
//! A packet that one of the two base chains accepts goes on to the other one.

use crate::facts::Direction;
use crate::plan::{ChainId, Item, Line, Match, SetId};
use pintle_netlink::nft::{
    Batch, ChainKind, Connection, Data, Family, Field, Hook, Key, Policy, Register, Rule, Set, SetName, Verdict,
};

pub(crate) const TABLE: &str = "pintle_policy";

const R0: Register = Register::new(0);
/// After rules of others that only mark packets.
const PRIORITY: [(Direction, i32); 2] = [(Direction::Egress, 1), (Direction::Ingress, 2)];

impl SetId {
    pub(crate) const FRAME: [Self; 3] =
        [Self::Isolated(Direction::Ingress), Self::Isolated(Direction::Egress), Self::Own];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Isolated(direction) => format!("isolated-{}", direction.name()),
            Self::Own => "own".to_owned(),
            Self::Peers(policy, direction, n) => format!("peers-{policy}-{}-{n}", direction.name()),
            Self::Named(policy, direction, n) => format!("named-ports-{policy}-{}-{n}", direction.name()),
        }
    }

    pub(crate) fn is_map(self) -> bool {
        matches!(self, Self::Isolated(_))
    }

    pub(crate) fn add(self, family: Family, batch: &mut Batch) {
        let address = family.address();
        let key: &[Field] = match self {
            Self::Isolated(_) | Self::Peers(..) => &[address],
            Self::Own => &[address, address],
            Self::Named(..) => &[address, Field::Protocol, Field::Port],
        };
        let data = if self.is_map() { Data::Verdict } else { Data::Nothing };
        batch.add_set(&self.name(), &Set { key, data, timeout_ms: None });
    }

    pub(crate) fn key(self, item: Item) -> Key {
        match item {
            Item::Address(address) if self == Self::Own => Key::new().address(address).address(address),
            Item::Address(address) => Key::new().address(address),
            Item::Socket(address, protocol, port) => Key::new().address(address).protocol(protocol).port(port),
        }
    }

    /// What a map holds for an item.
    pub(crate) fn verdict(self, item: Item) -> Verdict {
        match (self, item) {
            (Self::Isolated(direction), Item::Address(address) | Item::Socket(address, ..)) => {
                Verdict::Goto(ChainId::Pod(address, direction).name())
            }
            _ => Verdict::Return,
        }
    }
}

impl ChainId {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Policy(policy, direction) => format!("policy-{policy}-{}", direction.name()),
            Self::Pod(address, direction) => format!("pod-{address}-{}", direction.name()),
        }
    }

    fn direction(self) -> Direction {
        match self {
            Self::Policy(_, direction) | Self::Pod(_, direction) => direction,
        }
    }
}

impl Item {
    pub(crate) fn is_of(self, family: Family) -> bool {
        let (Self::Address(address) | Self::Socket(address, ..)) = self;
        family.has(address)
    }
}

impl ChainId {
    /// Policies are for packets of all families.
    pub(crate) fn is_of(self, family: Family) -> bool {
        match self {
            Self::Policy(..) => true,
            Self::Pod(address, _) => family.has(address),
        }
    }
}

/// Adds everything that does not belong to one policy or pod.
pub(crate) fn add_frame(family: Family, batch: &mut Batch) {
    for set in SetId::FRAME {
        set.add(family, batch);
    }
    for (direction, priority) in PRIORITY {
        let chain = direction.name();
        batch.add_base_chain(chain, ChainKind::Filter, Hook::Forward, priority, Policy::Accept);
        for answer in [Connection::Established, Connection::Related] {
            batch.add_rule(chain, family.rule().connection_is(answer, true).verdict(&Verdict::Accept));
        }
        let second = Register::new(family.address_registers());
        let own = family.rule().load_source(R0).load_destination(second).lookup(SetName::Named("own"), R0, true);
        batch.add_rule(chain, own.verdict(&Verdict::Accept));
        let map = SetId::Isolated(direction).name();
        let pod = match direction {
            Direction::Ingress => family.rule().load_destination(R0),
            Direction::Egress => family.rule().load_source(R0),
        };
        batch.add_rule(chain, pod.lookup_verdict(SetName::Named(&map), R0));
    }
}

/// Adds the rules of a chain, which must be empty.
pub(crate) fn fill_chain(family: Family, batch: &mut Batch, chain: ChainId, lines: &[Line]) {
    let (name, direction) = (chain.name(), chain.direction());
    for line in lines {
        let rule = match line {
            // No packet of this family comes from a block of the other one.
            Line::Accept(Match { block: Some((net, _)), .. }) if !family.has(net.addr()) => continue,
            Line::Accept(packets) => matching(family, packets, direction).verdict(&Verdict::Accept),
            Line::Jump(policy) => family.rule().verdict(&Verdict::Jump(ChainId::Policy(*policy, direction).name())),
            Line::Drop => family.rule().counter().verdict(&Verdict::Drop),
        };
        batch.add_rule(&name, rule);
    }
}

fn matching(family: Family, packets: &Match, direction: Direction) -> Rule {
    let mut rule = family.rule();
    if let Some(peers) = packets.peers {
        let loaded = match direction {
            Direction::Ingress => rule.load_source(R0),
            Direction::Egress => rule.load_destination(R0),
        };
        rule = loaded.lookup(SetName::Named(&peers.name()), R0, true);
    }
    if let Some((net, except)) = &packets.block {
        let except = except.iter().filter(|net| family.has(net.addr()));
        let nets = [(*net, true)].into_iter().chain(except.map(|net| (*net, false)));
        for (net, inside) in nets {
            rule = match direction {
                Direction::Ingress => rule.source_in(net, inside),
                Direction::Egress => rule.destination_in(net, inside),
            };
        }
    }
    if let Some(range) = packets.range {
        rule = rule.protocol_is(range.protocol);
        if (range.first, range.last) != (0, u16::MAX) {
            rule = rule.destination_port_in(range.first, range.last);
        }
    }
    if let Some(named) = packets.named {
        let width = family.address_registers();
        let (protocol, port) = (Register::new(width), Register::new(width + 1));
        let loaded = rule.load_destination(R0).load_protocol(protocol).load_destination_port(port);
        rule = loaded.lookup(SetName::Named(&named.name()), R0, true);
    }
    rule
}
