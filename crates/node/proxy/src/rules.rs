//! The layout of the table: which maps a packet is looked up in, and what the chains of services hold.
//!
//! ```text
//! prerouting, output:  firewall ─▶ (nat) services ─▶ service | outside | local ─▶ translated
//!                                                  └▶ check: nobody took it ─▶ reject | drop
//! postrouting:         marked, or an endpoint that meets itself ─▶ masquerade
//! ```

use crate::plan::{Chain, Local, Map, Socket, TCP, Target};
use ipnet::IpNet;
use pintle_netlink::nft::{
    Batch, ChainKind, Connection, Data, Field, Hook, Key, Policy, Register, Reject, Rule, Set, SetName, Verdict,
};
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) const TABLE: &str = "pintle_proxy";
/// The bit of a packet's mark that asks for masquerading: the same as kube-proxy's.
const MASQUERADE: u32 = 0x4000;

const REJECT: &str = "reject";
const R0: Register = Register::new(0);
const R1: Register = Register::new(1);
const R2: Register = Register::new(2);

impl Map {
    pub(crate) const ALL: [Self; 7] = [
        Self::Services,
        Self::NodePorts,
        Self::EmptyServices,
        Self::EmptyNodePorts,
        Self::Firewall,
        Self::ClusterAddresses,
        Self::Hairpin,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::NodePorts => "node-ports",
            Self::EmptyServices => "empty-services",
            Self::EmptyNodePorts => "empty-node-ports",
            Self::Firewall => "firewall",
            Self::ClusterAddresses => "cluster-addresses",
            Self::Hairpin => "hairpin",
        }
    }

    fn key(self) -> &'static [Field] {
        match self {
            Self::Services | Self::EmptyServices | Self::Firewall => &[Field::Ipv4, Field::Protocol, Field::Port],
            Self::NodePorts | Self::EmptyNodePorts => &[Field::Protocol, Field::Port],
            Self::ClusterAddresses => &[Field::Ipv4],
            Self::Hairpin => &[Field::Ipv4, Field::Ipv4],
        }
    }

    pub(crate) fn is_set(self) -> bool {
        matches!(self, Self::ClusterAddresses | Self::Hairpin)
    }

    pub(crate) fn reference(self) -> SetName<'static> {
        SetName::Named(self.name())
    }
}

impl Target {
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Chain(name) => Verdict::Goto(name.to_string()),
            Self::Reject => Verdict::Goto(REJECT.into()),
            Self::Drop => Verdict::Drop,
            Self::Present => Verdict::Return,
        }
    }
}

/// The ranges that decide whose packets come from inside the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    pub(crate) pods: Vec<IpNet>,
    pub(crate) services: Vec<IpNet>,
}

/// Adds everything that does not belong to one service.
pub(crate) fn add_frame(batch: &mut Batch, ranges: &Ranges) {
    for map in Map::ALL {
        let data = if map.is_set() { Data::Nothing } else { Data::Verdict };
        batch.add_set(map.name(), &Set { key: map.key(), data, timeout_ms: None });
    }
    for chain in ["services", "check", REJECT] {
        batch.add_chain(chain);
    }
    for (hook, name) in [(Hook::Prerouting, "prerouting"), (Hook::Output, "output")] {
        let chains =
            [("firewall", ChainKind::Filter, -110), ("nat", ChainKind::Nat, -100), ("check", ChainKind::Filter, -90)];
        for (prefix, kind, priority) in chains {
            batch.add_base_chain(&format!("{prefix}-{name}"), kind, hook, priority, Policy::Accept);
        }
        let new = || Rule::v4().connection_is(Connection::New, true);
        batch.add_rule(&format!("firewall-{name}"), by_address(new()).lookup_verdict(Map::Firewall.reference(), R0));
        batch.add_rule(&format!("nat-{name}"), Rule::v4().verdict(&Verdict::Jump("services".into())));
        batch.add_rule(&format!("check-{name}"), new().verdict(&Verdict::Jump("check".into())));
    }
    add_service_lookups(batch, ranges);
    add_checks(batch, ranges);
    add_masquerade(batch);
}

fn by_address(rule: Rule) -> Rule {
    rule.load_destination(R0).load_protocol(R1).load_destination_port(R2)
}

fn by_port() -> Rule {
    Rule::v4().destination_is_local().load_protocol(R0).load_destination_port(R1)
}

fn add_service_lookups(batch: &mut Batch, ranges: &Ranges) {
    if !ranges.pods.is_empty() {
        // An endpoint on another node could not answer a client from outside by itself.
        let outsider = ranges.pods.iter().fold(Rule::v4(), |rule, pods| rule.source_in(*pods, false));
        let rule = outsider.load_destination(R0).lookup(Map::ClusterAddresses.reference(), R0, true);
        batch.add_rule("services", rule.set_mark_bits(MASQUERADE));
    }
    batch.add_rule("services", by_address(Rule::v4()).lookup_verdict(Map::Services.reference(), R0));
    batch.add_rule("services", by_port().lookup_verdict(Map::NodePorts.reference(), R0));
}

fn add_checks(batch: &mut Batch, ranges: &Ranges) {
    batch.add_rule("check", Rule::v4().connection_is(Connection::Translated, true).verdict(&Verdict::Return));
    batch.add_rule("check", by_port().lookup_verdict(Map::EmptyNodePorts.reference(), R0));
    // The node may have an address of the services' range itself, for a DNS server on every node for example.
    batch.add_rule("check", Rule::v4().destination_is_local().verdict(&Verdict::Return));
    batch.add_rule("check", by_address(Rule::v4()).lookup_verdict(Map::EmptyServices.reference(), R0));
    let port_of_nobody = Rule::v4().load_destination(R0).lookup(Map::ClusterAddresses.reference(), R0, true);
    batch.add_rule("check", port_of_nobody.verdict(&Verdict::Goto(REJECT.into())));
    for services in &ranges.services {
        batch.add_rule("check", Rule::v4().destination_in(*services, true).verdict(&Verdict::Drop));
    }
    batch.add_rule(REJECT, Rule::v4().protocol_is(TCP).reject(Reject::TcpReset));
    batch.add_rule(REJECT, Rule::v4().reject(Reject::PortUnreachable));
}

fn add_masquerade(batch: &mut Batch) {
    let chain = "nat-postrouting";
    batch.add_base_chain(chain, ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept);
    batch.add_rule(chain, Rule::v4().mark_has(MASQUERADE, true).clear_mark_bits(MASQUERADE).masquerade());
    batch.add_rule(
        chain,
        Rule::v4()
            .connection_is(Connection::Translated, true)
            .load_source(R0)
            .load_destination(R1)
            .lookup(Map::Hairpin.reference(), R0, true)
            .masquerade()
            .comment("an endpoint that meets itself"),
    );
}

/// Adds the rules of a service's chain, which must be empty.
pub(crate) fn fill_chain(batch: &mut Batch, name: &str, chain: &Chain, ranges: &Ranges) {
    match chain {
        Chain::Balance { endpoints } => fill_balance(batch, name, endpoints),
        Chain::Affine { endpoints } => fill_affine(batch, name, endpoints),
        Chain::Endpoint { socket, clients, timeout_ms } => {
            let remember = Rule::v4().load_source(R0).remember(SetName::Named(clients), R0, *timeout_ms);
            batch.add_rule(name, translate(remember, *socket));
        }
        Chain::Outside { all, local } => fill_outside(batch, name, all.as_ref(), local.as_ref(), ranges),
        Chain::Firewall { ranges } => {
            for range in ranges {
                batch.add_rule(name, Rule::v4().source_in(*range, true).verdict(&Verdict::Return));
            }
            batch.add_rule(name, Rule::v4().verdict(&Verdict::Drop));
        }
    }
}

fn fill_balance(batch: &mut Batch, name: &str, endpoints: &[Socket]) {
    if let [only] = endpoints {
        batch.add_rule(name, translate(Rule::v4(), *only));
        return;
    }
    let data = Data::Fields(&[Field::Ipv4, Field::Port]);
    let map = batch.add_anonymous_set(&Set { key: &[Field::Number], data, timeout_ms: None });
    batch.add_values(
        map,
        (0..)
            .zip(endpoints)
            .map(|(n, (address, port))| (Key::new().number(n), Key::new().address(*address).port(*port))),
    );
    let rule = Rule::v4().load_random(R0, endpoints.len() as u32).lookup_into(map, R0, R1);
    batch.add_rule(name, rule.translate_destination(R1, Some(R2)));
    // A packet that runs through these rules in the instant in which they are replaced finds the map's elements gone
    // (the kernel looks at rules as of the packet's start, and at elements as of now). It must go somewhere.
    if let Some(first) = endpoints.first() {
        batch.add_rule(name, translate(Rule::v4(), *first));
    }
}

fn fill_affine(batch: &mut Batch, name: &str, endpoints: &[(Arc<str>, Arc<str>)]) {
    for (chain, clients) in endpoints {
        let known = Rule::v4().load_source(R0).lookup(SetName::Named(clients), R0, true);
        batch.add_rule(name, known.verdict(&Verdict::Goto(chain.to_string())));
    }
    let map = batch.add_anonymous_set(&Set { key: &[Field::Number], data: Data::Verdict, timeout_ms: None });
    let verdicts: Vec<Verdict> = endpoints.iter().map(|(chain, _)| Verdict::Goto(chain.to_string())).collect();
    batch.add_verdicts(map, (0..).zip(&verdicts).map(|(n, verdict)| (Key::new().number(n), verdict)));
    batch.add_rule(name, Rule::v4().load_random(R0, endpoints.len() as u32).lookup_verdict(map, R0));
    // As in `fill_balance`.
    if let Some(first) = verdicts.first() {
        batch.add_rule(name, Rule::v4().verdict(first));
    }
}

fn fill_outside(batch: &mut Batch, name: &str, all: Option<&Arc<str>>, local: Option<&Local>, ranges: &Ranges) {
    let goto = |chain: &Arc<str>| Verdict::Goto(chain.to_string());
    let Some(local) = local else {
        if let Some(all) = all {
            batch.add_rule(name, Rule::v4().set_mark_bits(MASQUERADE).verdict(&goto(all)));
        }
        return;
    };
    if let Some(all) = all {
        // Only clients from outside have an address that would get lost: the others need not stay on this node.
        for pods in &ranges.pods {
            batch.add_rule(name, Rule::v4().source_in(*pods, true).verdict(&goto(all)));
        }
        batch.add_rule(name, Rule::v4().source_is_local().set_mark_bits(MASQUERADE).verdict(&goto(all)));
    }
    if let Some(chain) = &local.chain {
        batch.add_rule(name, Rule::v4().verdict(&goto(chain)));
    }
}

fn translate(rule: Rule, (address, port): Socket) -> Rule {
    let rule = match address {
        IpAddr::V4(v4) => rule.load(R1, &v4.octets()),
        IpAddr::V6(v6) => rule.load(R1, &v6.octets()),
    };
    rule.load(R2, &port.to_be_bytes()).translate_destination(R1, Some(R2))
}

/// Adds the set of an endpoint's clients.
pub(crate) fn add_client_set(batch: &mut Batch, name: &str, timeout_ms: u64) {
    batch.add_set(name, &Set { key: &[Field::Ipv4], data: Data::Nothing, timeout_ms: Some(timeout_ms) });
}
