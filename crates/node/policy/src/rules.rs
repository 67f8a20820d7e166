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
use ipnet::IpNet;
use pintle_netlink::nft::{
    Batch, ChainKind, Connection, Data, Field, Hook, Key, Policy, Register, Rule, Set, SetName, Verdict,
};

pub(crate) const TABLE: &str = "pintle_policy";

const R0: Register = Register::new(0);
const R1: Register = Register::new(1);
const R2: Register = Register::new(2);
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

    pub(crate) fn add(self, batch: &mut Batch) {
        let key: &[Field] = match self {
            Self::Isolated(_) | Self::Peers(..) => &[Field::Ipv4],
            Self::Own => &[Field::Ipv4, Field::Ipv4],
            Self::Named(..) => &[Field::Ipv4, Field::Protocol, Field::Port],
        };
        let data = if self.is_map() { Data::Verdict } else { Data::Nothing };
        batch.add_set(&self.name(), &Set { key, data, timeout_ms: None });
    }

    pub(crate) fn key(self, item: Item) -> Key {
        match item {
            Item::Address(address) if self == Self::Own => Key::new().address(address.into()).address(address.into()),
            Item::Address(address) => Key::new().address(address.into()),
            Item::Socket(address, protocol, port) => Key::new().address(address.into()).protocol(protocol).port(port),
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

/// Adds everything that does not belong to one policy or pod.
pub(crate) fn add_frame(batch: &mut Batch) {
    for set in SetId::FRAME {
        set.add(batch);
    }
    for (direction, priority) in PRIORITY {
        let chain = direction.name();
        batch.add_base_chain(chain, ChainKind::Filter, Hook::Forward, priority, Policy::Accept);
        for answer in [Connection::Established, Connection::Related] {
            batch.add_rule(chain, Rule::v4().connection_is(answer, true).verdict(&Verdict::Accept));
        }
        let own = Rule::v4().load_source(R0).load_destination(R1).lookup(SetName::Named("own"), R0, true);
        batch.add_rule(chain, own.verdict(&Verdict::Accept));
        let map = SetId::Isolated(direction).name();
        let pod = match direction {
            Direction::Ingress => Rule::v4().load_destination(R0),
            Direction::Egress => Rule::v4().load_source(R0),
        };
        batch.add_rule(chain, pod.lookup_verdict(SetName::Named(&map), R0));
    }
}

/// Adds the rules of a chain, which must be empty.
pub(crate) fn fill_chain(batch: &mut Batch, chain: ChainId, lines: &[Line]) {
    let (name, direction) = (chain.name(), chain.direction());
    for line in lines {
        let rule = match line {
            Line::Accept(packets) => matching(packets, direction).verdict(&Verdict::Accept),
            Line::Jump(policy) => Rule::v4().verdict(&Verdict::Jump(ChainId::Policy(*policy, direction).name())),
            Line::Drop => Rule::v4().counter().verdict(&Verdict::Drop),
        };
        batch.add_rule(&name, rule);
    }
}

fn matching(packets: &Match, direction: Direction) -> Rule {
    let mut rule = Rule::v4();
    if let Some(peers) = packets.peers {
        let loaded = match direction {
            Direction::Ingress => rule.load_source(R0),
            Direction::Egress => rule.load_destination(R0),
        };
        rule = loaded.lookup(SetName::Named(&peers.name()), R0, true);
    }
    if let Some((net, except)) = &packets.block {
        let nets = [(*net, true)].into_iter().chain(except.iter().map(|net| (*net, false)));
        for (net, inside) in nets {
            rule = match direction {
                Direction::Ingress => rule.source_in(IpNet::V4(net), inside),
                Direction::Egress => rule.destination_in(IpNet::V4(net), inside),
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
        let loaded = rule.load_destination(R0).load_protocol(R1).load_destination_port(R2);
        rule = loaded.lookup(SetName::Named(&named.name()), R0, true);
    }
    rule
}
