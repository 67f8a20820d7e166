//! The layout of a family's table: which maps a packet is looked up in, and what the chains of services hold.
//!
//! ```text
//! prerouting, output:  firewall ─▶ services ─▶ service | outside | local ─▶ translated
//!                                            └▶ check: nobody took it ─▶ reject | drop
//! postrouting:         marked, or an endpoint that meets itself ─▶ masquerade
//! ```
//!
//! All base chains are of type nat: the kernel asks them about the first packet of a connection only, and no more of
//! them once one has translated it. So no rule of ours costs a packet of a connection that exists anything, and `check`
//! sees only what neither we nor another table lead somewhere. (kube-proxy's checks are filter chains, which every
//! packet passes to be found not to be new.) A packet that is rejected or dropped leaves no tracked connection behind:
//! its next attempt is asked about again.

use crate::plan::{Chain, Local, Map, Socket, TCP, Target};
use ipnet::IpNet;
use pintle_netlink::nft::{
    Batch, ChainKind, Connection, Data, Family, Field, Hook, Key, Policy, Register, Reject, Rule, Set, SetName, Verdict,
};
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) const TABLE: &str = "pintle_proxy";
/// The bit of a packet's mark that asks for masquerading: the same as kube-proxy's.
const MASQUERADE: u32 = 0x4000;

const REJECT: &str = "reject";
const CHECK_NODE: &str = "check-node";
const R0: Register = Register::new(0);

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

    /// What its keys are made of, where addresses are of this kind.
    fn key(self, address: Field) -> Vec<Field> {
        match self {
            Self::Services | Self::EmptyServices | Self::Firewall => vec![address, Field::Protocol, Field::Port],
            Self::NodePorts | Self::EmptyNodePorts => vec![Field::Protocol, Field::Port],
            Self::ClusterAddresses => vec![address],
            Self::Hairpin => vec![address, address],
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

impl Ranges {
    /// Those of one family.
    pub(crate) fn of(&self, family: Family) -> Self {
        let keep = |nets: &[IpNet]| nets.iter().copied().filter(|net| family.has(net.addr())).collect();
        Self { pods: keep(&self.pods), services: keep(&self.services) }
    }
}

/// A transaction on the table of one family.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) family: Family,
    /// Of the same family.
    pub(crate) ranges: &'a Ranges,
    pub(crate) batch: Batch,
}

impl<'a> Table<'a> {
    pub(crate) fn begin(family: Family, ranges: &'a Ranges) -> Self {
        Self { family, ranges, batch: Batch::new(family, TABLE) }
    }

    fn rule(&self) -> Rule {
        self.family.rule()
    }

    /// The register behind an address at the first one, and those that follow.
    fn behind_address(&self, n: u32) -> Register {
        Register::new(self.family.address_registers() + n)
    }

    /// Adds everything that does not belong to one service.
    pub(crate) fn add_frame(&mut self) {
        for map in Map::ALL {
            let data = if map.is_set() { Data::Nothing } else { Data::Verdict };
            self.batch.add_set(map.name(), &Set { key: &map.key(self.family.address()), data, timeout_ms: None });
        }
        for chain in ["services", "check", CHECK_NODE, REJECT] {
            self.batch.add_chain(chain);
        }
        for (hook, name) in [(Hook::Prerouting, "prerouting"), (Hook::Output, "output")] {
            for (prefix, priority) in [("firewall", -110), ("nat", -100), ("check", -90)] {
                let chain = format!("{prefix}-{name}");
                self.batch.add_base_chain(&chain, ChainKind::Nat, hook, priority, Policy::Accept);
            }
            let firewall = self.by_address().lookup_verdict(Map::Firewall.reference(), R0);
            self.batch.add_rule(&format!("firewall-{name}"), firewall);
            for (prefix, chain) in [("nat", "services"), ("check", "check")] {
                self.batch.add_rule(&format!("{prefix}-{name}"), self.rule().verdict(&Verdict::Jump(chain.into())));
            }
        }
        self.add_service_lookups();
        self.add_checks();
        self.add_masquerade();
    }

    fn by_address(&self) -> Rule {
        let (protocol, port) = (self.behind_address(0), self.behind_address(1));
        self.rule().load_destination(R0).load_protocol(protocol).load_destination_port(port)
    }

    fn by_port(rule: Rule) -> Rule {
        rule.load_protocol(R0).load_destination_port(Register::new(1))
    }

    fn add_service_lookups(&mut self) {
        if !self.ranges.pods.is_empty() {
            // An endpoint on another node could not answer a client from outside by itself.
            let outsider = self.ranges.pods.iter().fold(self.rule(), |rule, pods| rule.source_in(*pods, false));
            let rule = outsider.load_destination(R0).lookup(Map::ClusterAddresses.reference(), R0, true);
            self.batch.add_rule("services", rule.set_mark_bits(MASQUERADE));
        }
        let by_address = self.by_address().lookup_verdict(Map::Services.reference(), R0);
        self.batch.add_rule("services", by_address);
        let by_port = Self::by_port(self.rule().destination_is_local()).lookup_verdict(Map::NodePorts.reference(), R0);
        self.batch.add_rule("services", by_port);
    }

    fn add_checks(&mut self) {
        let empty_node_port = Self::by_port(self.rule()).lookup_verdict(Map::EmptyNodePorts.reference(), R0);
        self.batch.add_rule(CHECK_NODE, empty_node_port);
        let mut rules = vec![
            // The node may have an address of the services' range itself, for a DNS server on every node for example.
            self.rule().destination_is_local().verdict(&Verdict::Goto(CHECK_NODE.into())),
            self.by_address().lookup_verdict(Map::EmptyServices.reference(), R0),
        ];
        let port_of_nobody = self.rule().load_destination(R0).lookup(Map::ClusterAddresses.reference(), R0, true);
        rules.push(port_of_nobody.verdict(&Verdict::Goto(REJECT.into())));
        let services = self.ranges.services.iter();
        rules.extend(services.map(|net| self.rule().destination_in(*net, true).verdict(&Verdict::Drop)));
        for rule in rules {
            self.batch.add_rule("check", rule);
        }
        self.batch.add_rule(REJECT, self.family.rule().protocol_is(TCP).reject(Reject::TcpReset));
        self.batch.add_rule(REJECT, self.family.rule().reject(Reject::PortUnreachable));
    }

    fn add_masquerade(&mut self) {
        let chain = "nat-postrouting";
        self.batch.add_base_chain(chain, ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept);
        let marked = self.rule().mark_has(MASQUERADE, true).clear_mark_bits(MASQUERADE).masquerade();
        self.batch.add_rule(chain, marked);
        let itself = self
            .rule()
            .connection_is(Connection::Translated, true)
            .load_source(R0)
            .load_destination(self.behind_address(0))
            .lookup(Map::Hairpin.reference(), R0, true);
        self.batch.add_rule(chain, itself.masquerade().comment("an endpoint that meets itself"));
    }

    /// Adds the rules of a service's chain, which must be empty.
    pub(crate) fn fill_chain(&mut self, name: &str, chain: &Chain) {
        match chain {
            Chain::Balance { endpoints } => self.fill_balance(name, endpoints),
            Chain::Affine { endpoints } => self.fill_affine(name, endpoints),
            Chain::Endpoint { socket, clients, timeout_ms } => {
                let remember = self.rule().load_source(R0).remember(SetName::Named(clients), R0, *timeout_ms);
                self.batch.add_rule(name, self.translate(remember, *socket));
            }
            Chain::Outside { all, local } => self.fill_outside(name, all.as_ref(), local.as_ref()),
            Chain::Firewall { ranges } => {
                for range in ranges {
                    self.batch.add_rule(name, self.family.rule().source_in(*range, true).verdict(&Verdict::Return));
                }
                self.batch.add_rule(name, self.family.rule().verdict(&Verdict::Drop));
            }
        }
    }

    fn fill_balance(&mut self, name: &str, endpoints: &[Socket]) {
        if let [only] = endpoints {
            self.batch.add_rule(name, self.translate(self.rule(), *only));
            return;
        }
        let data = [self.family.address(), Field::Port];
        let data = Data::Fields(&data);
        let map = self.batch.add_anonymous_set(&Set { key: &[Field::Number], data, timeout_ms: None }, endpoints.len());
        self.batch.add_values(
            map,
            (0..)
                .zip(endpoints)
                .map(|(n, (address, port))| (Key::new().number(n), Key::new().address(*address).port(*port))),
        );
        let address = Register::new(1);
        let port = self.behind_address(1);
        let rule = self.rule().load_random(R0, endpoints.len() as u32).lookup_into(map, R0, address);
        self.batch.add_rule(name, rule.translate_destination(address, Some(port)));
        // A packet that runs through these rules in the instant in which they are replaced finds the map's elements
        // gone (the kernel looks at rules as of the packet's start, and at elements as of now). It must go somewhere.
        if let Some(first) = endpoints.first() {
            self.batch.add_rule(name, self.translate(self.rule(), *first));
        }
    }

    fn fill_affine(&mut self, name: &str, endpoints: &[(Arc<str>, Arc<str>)]) {
        for (chain, clients) in endpoints {
            let known = self.rule().load_source(R0).lookup(SetName::Named(clients), R0, true);
            self.batch.add_rule(name, known.verdict(&Verdict::Goto(chain.to_string())));
        }
        let map = Set { key: &[Field::Number], data: Data::Verdict, timeout_ms: None };
        let map = self.batch.add_anonymous_set(&map, endpoints.len());
        let verdicts: Vec<Verdict> = endpoints.iter().map(|(chain, _)| Verdict::Goto(chain.to_string())).collect();
        self.batch.add_verdicts(map, (0..).zip(&verdicts).map(|(n, verdict)| (Key::new().number(n), verdict)));
        let random = self.rule().load_random(R0, endpoints.len() as u32).lookup_verdict(map, R0);
        self.batch.add_rule(name, random);
        // As in `fill_balance`.
        if let Some(first) = verdicts.first() {
            self.batch.add_rule(name, self.family.rule().verdict(first));
        }
    }

    fn fill_outside(&mut self, name: &str, all: Option<&Arc<str>>, local: Option<&Local>) {
        let family = self.family;
        let goto = |chain: &Arc<str>| Verdict::Goto(chain.to_string());
        let Some(local) = local else {
            if let Some(all) = all {
                self.batch.add_rule(name, family.rule().set_mark_bits(MASQUERADE).verdict(&goto(all)));
            }
            return;
        };
        if let Some(all) = all {
            // Only clients from outside have an address that would get lost: the others need not stay on this node.
            for pods in &self.ranges.pods {
                self.batch.add_rule(name, family.rule().source_in(*pods, true).verdict(&goto(all)));
            }
            let from_here = family.rule().source_is_local().set_mark_bits(MASQUERADE);
            self.batch.add_rule(name, from_here.verdict(&goto(all)));
        }
        if let Some(chain) = &local.chain {
            self.batch.add_rule(name, family.rule().verdict(&goto(chain)));
        }
    }

    fn translate(&self, rule: Rule, (address, port): Socket) -> Rule {
        let (to, to_port) = (Register::new(1), self.behind_address(1));
        let rule = match address {
            IpAddr::V4(v4) => rule.load(to, &v4.octets()),
            IpAddr::V6(v6) => rule.load(to, &v6.octets()),
        };
        rule.load(to_port, &port.to_be_bytes()).translate_destination(to, Some(to_port))
    }

    /// Adds the set of an endpoint's clients.
    pub(crate) fn add_client_set(&mut self, name: &str, timeout_ms: u64) {
        let key = [self.family.address()];
        self.batch.add_set(name, &Set { key: &key, data: Data::Nothing, timeout_ms: Some(timeout_ms) });
    }
}
