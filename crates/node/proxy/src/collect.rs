//! Reads Services and EndpointSlices into the facts that a plan needs.

use crate::health::Check;
use crate::plan::{Endpoint, Hint, Protocol, SCTP, ServicePort, TCP, UDP};
use pintle_netlink::nft::Family;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use pintle_types::k8s::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Of a Service that somebody else proxies.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Of an EndpointSlice: the name of its Service.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The API server's default, for objects that it has not set.
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// Who asks: what is local and what is near depends on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) zone: Option<String>,
}

/// The ports of a service that packets of a family can be sent to; none for headless, external-name and other proxies'
/// services, and for those without an address of the family.
pub(crate) fn ports_of(service: &Service, family: Family) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let cluster_addresses = cluster_addresses(spec, family);
    if cluster_addresses.is_empty()
        || spec.type_.as_deref() == Some("ExternalName")
        || service.label(OTHER_PROXY_LABEL).is_some()
    {
        return Vec::new();
    }
    let common = ServicePort {
        cluster_addresses,
        external_addresses: of_family(family, spec.external_ips.iter().flatten()),
        balancer_addresses: balancer_addresses(service, spec, family),
        source_ranges: spec
            .load_balancer_source_ranges
            .iter()
            .flatten()
            .filter_map(|range| range.trim().parse().ok())
            .filter(|range: &ipnet::IpNet| family.has(range.addr()))
            .collect(),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        affinity_ms: affinity(spec),
        ..ServicePort::default()
    };
    spec.ports.iter().flatten().filter_map(|port| port_of(service, port, &common)).collect()
}

fn port_of(service: &Service, port: &ApiPort, common: &ServicePort) -> Option<ServicePort> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    Some(ServicePort {
        name: format!(
            "{}/{}/{}/{}",
            service.namespace(),
            service.name(),
            protocol.to_ascii_lowercase(),
            port.name.as_deref().unwrap_or_default()
        ),
        protocol: protocol_number(protocol)?,
        port: number(port.port)?,
        node_port: port.node_port.and_then(number),
        ..common.clone()
    })
}

/// What load balancers ask on the service's health check port, if it has one: how many of its endpoints are here.
pub(crate) fn check_of<'s>(
    service: &Service,
    slices: impl Iterator<Item = &'s EndpointSlice>,
    place: &Place,
) -> Option<Check> {
    let spec = service.spec.as_ref()?;
    let local = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local")
        && service.label(OTHER_PROXY_LABEL).is_none();
    let port = spec.health_check_node_port.and_then(number).filter(|_| local)?;
    // An endpoint of two families is one.
    let family = spec.ip_families.iter().flatten().next().map_or("IPv4", String::as_str);
    let slices = slices.filter(|slice| slice.address_type == family);
    let endpoints = slices.flat_map(|slice| slice.endpoints.iter().flatten());
    let here = endpoints.filter(|endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        ready && endpoint.node_name.as_ref() == Some(&place.node)
    });
    let addresses: BTreeSet<&String> = here.filter_map(|endpoint| endpoint.addresses.first()).collect();
    Some(Check { port, local_endpoints: addresses.len() })
}

/// The endpoints of a service port with addresses of a family, each socket once, in order.
pub(crate) fn endpoints_of<'s>(
    family: Family,
    port: &ServicePort,
    slices: impl Iterator<Item = &'s EndpointSlice>,
    place: &Place,
) -> Vec<Endpoint> {
    let port_name = port.name.rsplit('/').next().unwrap_or_default();
    let mut found: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type == type_of(family)) {
        let target = slice.ports.iter().flatten().find(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == port_name
                && protocol_number(candidate.protocol.as_deref().unwrap_or("TCP")) == Some(port.protocol)
        });
        let Some(target) = target.and_then(|target| number(target.port?)) else { continue };
        for endpoint in slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint_of(endpoint, target, place)) {
            // While an endpoint moves between slices it is in both; the one that takes packets is the newer.
            let known = found.entry(endpoint.socket()).or_insert(endpoint);
            if endpoint.ready && !known.ready {
                *known = endpoint;
            }
        }
    }
    found.into_values().collect()
}

fn endpoint_of(endpoint: &ApiEndpoint, port: u16, place: &Place) -> Option<Endpoint> {
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    let nodes = hints.into_iter().flat_map(|hints| hints.for_nodes.iter().flatten()).map(|node| node.name.as_str());
    let zones = hints.into_iter().flat_map(|hints| hints.for_zones.iter().flatten()).map(|zone| zone.name.as_str());
    Some(Endpoint {
        address: endpoint.addresses.first()?.parse().ok()?,
        port,
        ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(true),
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(true),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        local: endpoint.node_name.as_ref().map(|node| *node == place.node),
        node_hint: hint(nodes, Some(&place.node)),
        zone_hint: hint(zones, place.zone.as_deref()),
    })
}

fn hint<'h>(mut hints: impl Iterator<Item = &'h str>, here: Option<&str>) -> Hint {
    match hints.next() {
        None => Hint::None,
        Some(first) if Some(first) == here || hints.any(|other| Some(other) == here) => Hint::Here,
        Some(_) => Hint::Elsewhere,
    }
}

fn cluster_addresses(spec: &ServiceSpec, family: Family) -> Vec<IpAddr> {
    match &spec.cluster_ips {
        Some(several) if !several.is_empty() => of_family(family, several.iter()),
        _ => of_family(family, spec.cluster_ip.iter()),
    }
}

/// Addresses that a load balancer keeps in the packets it passes on; one that is a proxy puts in the node's.
fn balancer_addresses(service: &Service, spec: &ServiceSpec, family: Family) -> Vec<IpAddr> {
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return Vec::new();
    }
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.into_iter().flat_map(|status| status.ingress.iter().flatten());
    of_family(family, ingress.filter(|one| one.ip_mode.as_deref() != Some("Proxy")).filter_map(|one| one.ip.as_ref()))
}

fn affinity(spec: &ServiceSpec) -> Option<u64> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS);
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(|seconds| seconds * 1000)
}

/// What is not an address of the family (`None`, an empty string, one of the other family) is left out.
fn of_family<'t>(family: Family, texts: impl Iterator<Item = &'t String>) -> Vec<IpAddr> {
    texts.filter_map(|text| text.parse().ok()).filter(|address| family.has(*address)).collect()
}

/// The `addressType` of its EndpointSlices.
fn type_of(family: Family) -> &'static str {
    if family == Family::Ip6 { "IPv6" } else { "IPv4" }
}

fn protocol_number(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(TCP),
        "UDP" => Some(UDP),
        "SCTP" => Some(SCTP),
        _ => None,
    }
}

/// A port number; 0 is none.
fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}
