//! Reads NetworkPolicies, pods and namespaces into the facts that a plan needs.

use ipnet::IpNet;
use pintle_types::k8s::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use pintle_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use pintle_types::selector::LabelSelector;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(crate) type Labels = BTreeMap<String, String>;
/// A transport protocol by its number in the IP header.
pub(crate) type Protocol = u8;
const TCP: Protocol = 6;
const UDP: Protocol = 17;
const SCTP: Protocol = 132;

/// Which way packets go, seen from the pods that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A policy; nothing for a direction that it leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) selector: LabelSelector,
    pub(crate) ingress: Option<Vec<Allowance>>,
    pub(crate) egress: Option<Vec<Allowance>>,
}

impl Policy {
    pub(crate) fn rules(&self, direction: Direction) -> Option<&[Allowance]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// One rule: these ports of these peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Nothing allows everybody, which is not the same as an empty list.
    pub(crate) peers: Option<Vec<Peer>>,
    /// Nothing allows every port of every protocol.
    pub(crate) ports: Option<Vec<PortRange>>,
    pub(crate) named_ports: Vec<(Protocol, String)>,
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Pods with these labels in namespaces with those; in the policy's own namespace when nothing is said of them.
    Pods {
        namespaces: Option<LabelSelector>,
        pods: LabelSelector,
    },
    Block {
        net: IpNet,
        except: Vec<IpNet>,
    },
}

/// Ports `first` to `last` of a protocol; 0 to 65535 are all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) protocol: Protocol,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// A pod with an address of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) labels: Labels,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) named_ports: Vec<(Protocol, String, u16)>,
    /// On this node.
    pub(crate) local: bool,
}

/// What a policy says, as upstream defaults it.
pub(crate) fn policy(object: &NetworkPolicy) -> Policy {
    let Some(spec) = &object.spec else { return Policy::default() };
    let ingress = || spec.ingress.iter().flatten().map(|rule| allowance(rule.from.as_deref(), rule.ports.as_deref()));
    let egress = || spec.egress.iter().flatten().map(|rule| allowance(rule.to.as_deref(), rule.ports.as_deref()));
    Policy {
        // An empty selector selects all pods of the namespace, and so does none.
        selector: spec
            .pod_selector
            .as_ref()
            .map_or_else(LabelSelector::default, |s| LabelSelector::from_typed(Some(s))),
        ingress: affects(spec, "Ingress", true).then(|| ingress().collect()),
        egress: affects(spec, "Egress", spec.egress.is_some()).then(|| egress().collect()),
    }
}

fn affects(spec: &NetworkPolicySpec, direction: &str, default: bool) -> bool {
    match spec.policy_types.as_deref() {
        None | Some([]) => default,
        Some(types) => types.iter().any(|found| found == direction),
    }
}

fn allowance(peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>) -> Allowance {
    let peers = peers.filter(|peers| !peers.is_empty());
    let mut allowance =
        Allowance { peers: peers.map(|peers| peers.iter().filter_map(peer).collect()), ..Allowance::default() };
    if let Some(ports) = ports.filter(|ports| !ports.is_empty()) {
        let mut ranges = Vec::new();
        for port in ports {
            let Some(protocol) = protocol(port.protocol.as_deref().unwrap_or("TCP")) else { continue };
            match &port.port {
                None => ranges.push(PortRange { protocol, first: 0, last: u16::MAX }),
                Some(IntOrString::Int(first)) => {
                    let last = port.end_port.unwrap_or(*first);
                    if let (Ok(first), Ok(last)) = (u16::try_from(*first), u16::try_from(last)) {
                        ranges.push(PortRange { protocol, first, last });
                    }
                }
                Some(IntOrString::String(name)) => allowance.named_ports.push((protocol, name.clone())),
            }
        }
        allowance.ports = Some(ranges);
    }
    allowance
}

/// Nothing for what says nothing.
fn peer(peer: &NetworkPolicyPeer) -> Option<Peer> {
    if let Some(block) = &peer.ip_block {
        let except = block.except.iter().flatten().filter_map(|net| net.parse::<IpNet>().ok());
        return Some(Peer::Block { net: block.cidr.parse::<IpNet>().ok()?.trunc(), except: except.collect() });
    }
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
        return None;
    }
    let typed = |selector| LabelSelector::from_typed(Some(selector));
    Some(Peer::Pods {
        namespaces: peer.namespace_selector.as_ref().map(typed),
        pods: peer.pod_selector.as_ref().map_or_else(LabelSelector::default, typed),
    })
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(TCP),
        "UDP" => Some(UDP),
        "SCTP" => Some(SCTP),
        _ => None,
    }
}

/// The parts of any object that a watch needs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawMeta {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) labels: Option<Labels>,
}

/// An object of which only the metadata counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawObject {
    pub(crate) metadata: RawMeta,
}

/// The parts of a pod that count: a small part of what is sent, which is all that is kept of pods of other nodes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawPod {
    pub(crate) metadata: RawMeta,
    spec: RawSpec,
    status: RawStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Vec<RawContainer>,
    init_containers: Option<Vec<RawContainer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    ports: Option<Vec<RawPort>>,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    name: Option<String>,
    container_port: i32,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<RawAddress>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawAddress {
    ip: String,
}

impl RawPod {
    /// Nothing for a pod that has the node's network, or that has ended: its address may be another pod's.
    pub(crate) fn facts(self, node: &str) -> Option<Pod> {
        let ended = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended || self.spec.host_network == Some(true) {
            return None;
        }
        let sidecars =
            self.spec.init_containers.into_iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = self
            .spec
            .containers
            .into_iter()
            .chain(sidecars)
            .flat_map(|container| container.ports.into_iter().flatten());
        let addresses = match self.status.pod_ips {
            Some(several) if !several.is_empty() => several.into_iter().map(|address| address.ip).collect(),
            _ => Vec::from_iter(self.status.pod_ip),
        };
        Some(Pod {
            uid: self.metadata.uid,
            labels: self.metadata.labels.unwrap_or_default(),
            addresses: addresses.iter().filter_map(|text| text.parse().ok()).collect(),
            named_ports: ports.filter_map(named_port).collect(),
            local: self.spec.node_name.as_deref() == Some(node),
        })
    }
}

fn named_port(port: RawPort) -> Option<(Protocol, String, u16)> {
    let number = protocol(port.protocol.as_deref().unwrap_or("TCP"))?;
    Some((number, port.name?, u16::try_from(port.container_port).ok()?))
}
