//! Says what the kernel should have for a service: a pure function from its ports and endpoints.

use ipnet::IpNet;
use pintle_netlink::nft::Key;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A transport protocol by its number in the IP header.
pub(crate) type Protocol = u8;
pub(crate) const TCP: Protocol = 6;
pub(crate) const UDP: Protocol = 17;
pub(crate) const SCTP: Protocol = 132;

/// One port of a service, with everything that decides where its packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// `namespace/name/protocol/port name`, unique in the cluster.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) cluster_addresses: Vec<IpAddr>,
    /// `externalIPs`.
    pub(crate) external_addresses: Vec<IpAddr>,
    /// Of load balancers that pass packets on as they are.
    pub(crate) balancer_addresses: Vec<IpAddr>,
    /// Who may use the load balancer; empty is everybody.
    pub(crate) source_ranges: Vec<IpNet>,
    pub(crate) node_port: Option<u16>,
    /// `internalTrafficPolicy: Local`.
    pub(crate) internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub(crate) external_local: bool,
    /// How long a client stays with its endpoint, if it does.
    pub(crate) affinity_ms: Option<u64>,
}

impl ServicePort {
    fn has_outside(&self) -> bool {
        self.node_port.is_some() || !self.external_addresses.is_empty() || !self.balancer_addresses.is_empty()
    }
}

/// Whether an endpoint is meant for clients here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hint {
    #[default]
    None,
    Here,
    Elsewhere,
}

/// One endpoint of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// On this node; nothing when the slice does not tell.
    pub(crate) local: Option<bool>,
    pub(crate) node_hint: Hint,
    pub(crate) zone_hint: Hint,
}

/// Where packets go in the end.
pub(crate) type Socket = (IpAddr, u16);

/// A map or set of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Map {
    /// Address, protocol, port → chain.
    Services,
    /// Protocol, port → chain, for all addresses of the node.
    NodePorts,
    /// Address, protocol, port → what becomes of packets that no endpoint takes.
    EmptyServices,
    EmptyNodePorts,
    /// Address, protocol, port → the chain that checks the source.
    Firewall,
    /// A set of all cluster addresses.
    ClusterAddresses,
    /// A set of endpoints that can meet themselves, each twice.
    Hairpin,
}

/// An element of one of the table's maps.
pub(crate) type Element = (Map, Key);

/// What an element holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Chain(Arc<str>),
    Reject,
    Drop,
    /// It is an element of a set.
    Present,
}

/// What a chain does, in the words of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Picks an endpoint at random and translates.
    Balance { endpoints: Vec<Socket> },
    /// Picks the endpoint that the client had before, or one at random: chains of endpoints with their sets.
    Affine { endpoints: Vec<(Arc<str>, Arc<str>)> },
    /// Remembers the client in the set and translates.
    Endpoint { socket: Socket, clients: Arc<str>, timeout_ms: u64 },
    /// Packets from outside the cluster: to all endpoints under the node's address, or with the client's own address
    /// to local ones only.
    Outside { all: Option<Arc<str>>, local: Option<Local> },
    /// Drops what does not come from these ranges.
    Firewall { ranges: Vec<IpNet> },
}

/// The second half of an outside chain of a service that keeps its clients' addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    /// Nothing when this node has no endpoint.
    pub(crate) chain: Option<Arc<str>>,
}

/// Everything that the kernel should have for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceRules {
    pub(crate) chains: BTreeMap<Arc<str>, Chain>,
    /// Sets of clients with their timeout in milliseconds.
    pub(crate) sets: BTreeMap<Arc<str>, u64>,
    pub(crate) elements: Vec<(Element, Target)>,
    /// Where its datagrams go, for the flows that must be forgotten when one goes away.
    pub(crate) datagram_endpoints: Vec<Socket>,
}

/// Plans all ports of a service.
pub(crate) fn plan(ports: &[(ServicePort, Vec<Endpoint>)]) -> ServiceRules {
    let mut rules = ServiceRules::default();
    for (port, endpoints) in ports {
        PortPlan { port, rules: &mut rules }.add(endpoints);
    }
    rules
}

struct PortPlan<'a> {
    port: &'a ServicePort,
    rules: &'a mut ServiceRules,
}

impl PortPlan<'_> {
    fn add(&mut self, endpoints: &[Endpoint]) {
        let port = self.port;
        let choice = choose(port, endpoints);
        let all = self.add_balance("service", &choice.cluster);
        let local = self.add_balance("local", &choice.local);
        for address in &port.cluster_addresses {
            self.element(Map::ClusterAddresses, Key::new().address(*address), Target::Present);
        }
        let inside = if port.internal_local { local.clone() } else { all.clone() };
        let nobody = if choice.any { Target::Drop } else { Target::Reject };
        let target = inside.map_or((Map::EmptyServices, nobody.clone()), |chain| (Map::Services, Target::Chain(chain)));
        for address in &port.cluster_addresses {
            self.element(target.0, self.key(*address), target.1.clone());
        }
        if port.has_outside() {
            self.add_outside(all, local, &nobody);
        }
        self.add_hairpin(&choice);
        if port.protocol == UDP {
            self.rules.datagram_endpoints.extend(choice.cluster.iter().chain(&choice.local).map(Endpoint::socket));
        }
    }

    /// Addresses and ports that clients outside the cluster use.
    fn add_outside(&mut self, all: Option<Arc<str>>, local: Option<Arc<str>>, nobody: &Target) {
        let port = self.port;
        let reachable = if port.external_local { local.is_some() } else { all.is_some() };
        // Clients inside reach all endpoints even where those from outside find none on this node.
        if all.is_some() || local.is_some() {
            let name = self.name("outside");
            let local = port.external_local.then_some(Local { chain: local });
            self.rules.chains.insert(name.clone(), Chain::Outside { all, local });
            self.outside_elements(Map::Services, Map::NodePorts, &Target::Chain(name));
        }
        if !reachable {
            self.outside_elements(Map::EmptyServices, Map::EmptyNodePorts, nobody);
        }
        if !port.source_ranges.is_empty() && !port.balancer_addresses.is_empty() {
            let name = self.name("firewall");
            self.rules.chains.insert(name.clone(), Chain::Firewall { ranges: port.source_ranges.clone() });
            for address in &port.balancer_addresses {
                self.element(Map::Firewall, self.key(*address), Target::Chain(name.clone()));
            }
        }
    }

    fn outside_elements(&mut self, addresses: Map, node_ports: Map, target: &Target) {
        let port = self.port;
        for address in port.external_addresses.iter().chain(&port.balancer_addresses) {
            self.element(addresses, self.key(*address), target.clone());
        }
        if let Some(node_port) = port.node_port {
            self.element(node_ports, Key::new().protocol(port.protocol).port(node_port), target.clone());
        }
    }

    /// The chain that spreads packets over these endpoints; nothing when there are none.
    fn add_balance(&mut self, kind: &str, endpoints: &[Endpoint]) -> Option<Arc<str>> {
        if endpoints.is_empty() {
            return None;
        }
        let name = self.name(kind);
        let chain = match self.port.affinity_ms {
            None => Chain::Balance { endpoints: endpoints.iter().map(Endpoint::socket).collect() },
            Some(timeout_ms) => {
                Chain::Affine { endpoints: endpoints.iter().map(|one| self.add_endpoint(one, timeout_ms)).collect() }
            }
        };
        self.rules.chains.insert(name.clone(), chain);
        Some(name)
    }

    fn add_endpoint(&mut self, endpoint: &Endpoint, timeout_ms: u64) -> (Arc<str>, Arc<str>) {
        let suffix = format!("{}__{}/{}", self.port.name, endpoint.address, endpoint.port);
        let chain: Arc<str> = format!("endpoint-{suffix}").into();
        let clients: Arc<str> = format!("affinity-{suffix}").into();
        self.rules.sets.insert(clients.clone(), timeout_ms);
        let content = Chain::Endpoint { socket: endpoint.socket(), clients: clients.clone(), timeout_ms };
        self.rules.chains.insert(chain.clone(), content);
        (chain, clients)
    }

    /// An endpoint that calls its own service must see an answer from the address that it called.
    fn add_hairpin(&mut self, choice: &Choice) {
        for endpoint in choice.cluster.iter().chain(&choice.local).filter(|endpoint| endpoint.local != Some(false)) {
            let pair = Key::new().address(endpoint.address).address(endpoint.address);
            self.element(Map::Hairpin, pair, Target::Present);
        }
    }

    fn element(&mut self, map: Map, key: Key, target: Target) {
        self.rules.elements.push(((map, key), target));
    }

    fn key(&self, address: IpAddr) -> Key {
        Key::new().address(address).protocol(self.port.protocol).port(self.port.port)
    }

    fn name(&self, kind: &str) -> Arc<str> {
        format!("{kind}-{}", self.port.name).into()
    }
}

impl Endpoint {
    pub(crate) fn socket(&self) -> Socket {
        (self.address, self.port)
    }

    fn is_serving_terminating(&self) -> bool {
        self.serving && self.terminating
    }
}

/// Which endpoints take packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) cluster: Vec<Endpoint>,
    pub(crate) local: Vec<Endpoint>,
    /// Whether any endpoint of the cluster could take a packet.
    pub(crate) any: bool,
}

/// Chooses endpoints as kube-proxy does: ready ones, preferring those meant for clients here, and when there are none
/// those that still serve while they end.
pub(crate) fn choose(port: &ServicePort, endpoints: &[Endpoint]) -> Choice {
    let mut choice = Choice::default();
    if !port.internal_local || port.has_outside() {
        let here = preference(endpoints);
        choice.cluster = endpoints.iter().filter(|one| one.ready && here(one)).copied().collect();
        if choice.cluster.is_empty() {
            choice.cluster = endpoints.iter().filter(|one| one.is_serving_terminating()).copied().collect();
        }
        choice.any = !choice.cluster.is_empty();
    }
    if port.internal_local || (port.external_local && port.has_outside()) {
        let local: Vec<Endpoint> = endpoints.iter().filter(|one| one.local == Some(true)).copied().collect();
        choice.local = local.iter().filter(|one| one.ready).copied().collect();
        if choice.local.is_empty() {
            choice.local = local.into_iter().filter(Endpoint::is_serving_terminating).collect();
        }
        choice.any |= endpoints.iter().any(|one| one.ready || one.is_serving_terminating());
    }
    choice
}

/// Hints count only when every ready endpoint has one and at least one is meant for here.
fn preference(endpoints: &[Endpoint]) -> fn(&Endpoint) -> bool {
    let decides = |hint: fn(&Endpoint) -> Hint| {
        let mut hints = endpoints.iter().filter(|one| one.ready).map(hint).peekable();
        hints.clone().all(|hint| hint != Hint::None) && hints.any(|hint| hint == Hint::Here)
    };
    if decides(|one| one.node_hint) {
        |one| one.node_hint == Hint::Here
    } else if decides(|one| one.zone_hint) {
        |one| one.zone_hint == Hint::Here
    } else {
        |_| true
    }
}
