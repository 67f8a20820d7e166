//! Says which addresses a Service has: a pure function of nodes and endpoints.

use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Node, Service, ServiceSpec};
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Of nodes that no load balancer shall use.
pub const EXCLUDED_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Of nodes that are about to be removed.
const REMOVAL_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Whether a Service is ours to serve: a class asks for somebody else.
pub fn is_ours(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none())
        && !service.is_deleting()
}

/// The ports that a Service takes of its addresses, as `TCP/80`.
pub fn ports(service: &Service) -> Vec<String> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.map(|port| format!("{}/{}", port.protocol.as_deref().unwrap_or("TCP"), port.port)).collect()
}

/// Whether the first Service had its ports before the second one: the older, then the one that sorts first.
pub fn is_before(first: &Service, second: &Service) -> bool {
    let age = |service: &Service| service.metadata.creation_timestamp.clone().map(|time| time.0);
    (age(first), first.key()) < (age(second), second.key())
}

/// The ports of nodes that no Service may take: those of the API server and of kubelets.
pub fn reserved<N: Borrow<Node>>(nodes: &[N], kubernetes: Option<&Service>) -> BTreeSet<String> {
    let kubelets = nodes.iter().filter_map(|node| {
        let endpoints = node.borrow().status.as_ref()?.daemon_endpoints.as_ref()?;
        Some(endpoints.kubelet_endpoint.as_ref()?.port)
    });
    let api =
        kubernetes.into_iter().flat_map(|service| service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()));
    let api = api.filter_map(|port| match &port.target_port {
        Some(pintle_types::k8s::apimachinery::pkg::util::intstr::IntOrString::Int(number)) => Some(*number),
        _ => None,
    });
    kubelets.chain(api).map(|port| format!("TCP/{port}")).collect()
}

/// The addresses of a Service: of all nodes that can take packets, or where clients' addresses are kept, of those that
/// have an endpoint.
pub fn addresses<N: Borrow<Node>, S: Borrow<EndpointSlice>>(
    service: &Service,
    nodes: &[N],
    slices: &[S],
) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let serving = local.then(|| serving_nodes(slices));
    let mut found: Vec<IpAddr> = nodes
        .iter()
        .map(Borrow::borrow)
        .filter(|node| takes_packets(node) && serving.as_ref().is_none_or(|serving| serving.contains(node.name())))
        .flat_map(node_addresses)
        .filter(|address| is_of_family(spec, address))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.iter().map(IpAddr::to_string).collect()
}

fn serving_nodes<S: Borrow<EndpointSlice>>(slices: &[S]) -> BTreeSet<String> {
    let endpoints = slices.iter().flat_map(|slice| slice.borrow().endpoints.iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_none_or(|c| c.ready.unwrap_or(true)));
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

fn takes_packets(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    crate::node::is_ready(node)
        && node.label(EXCLUDED_LABEL).is_none()
        && !taints.iter().any(|taint| taint.key == REMOVAL_TAINT)
}

/// The external addresses of a node; without any, the internal ones.
fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let of = |kind: &str| -> Vec<IpAddr> {
        all.iter().filter(|address| address.type_ == kind).filter_map(|address| address.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

fn is_of_family(spec: &ServiceSpec, address: &IpAddr) -> bool {
    let name = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    match spec.ip_families.as_deref() {
        None | Some([]) => address.is_ipv4(),
        Some(families) => families.iter().any(|family| family == name),
    }
}
