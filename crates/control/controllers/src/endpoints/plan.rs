//! What a Service's endpoints are: which pods count, under which addresses and ports.

use crate::pods;
use pintle_types::k8s::api::core::v1::{Container, Pod, Service, ServicePort};
use pintle_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use pintle_types::selector::LabelSelector;
use std::net::IpAddr;

/// A port of the endpoints, with the pod's number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub number: i32,
    pub app_protocol: Option<String>,
}

/// The selector of a Service that has its endpoints managed; nothing for the others.
pub fn selector_of(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then(|| LabelSelector::from_map(selector))
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods that aren't ready are told as if they were.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or_default()
}

/// Whether a pod can be an endpoint.
pub fn counts(pod: &Pod, terminating_too: bool) -> bool {
    !pods::is_finished(pod)
        && !addresses(pod).is_empty()
        && (terminating_too || pod.metadata.deletion_timestamp.is_none())
}

/// The pod's addresses as it tells them.
pub fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<String> =
        status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() { status.pod_ip.clone().filter(|ip| !ip.is_empty()).into_iter().collect() } else { all }
}

/// The pod's addresses of one family (`IPv4` or `IPv6`).
pub fn addresses_of(pod: &Pod, family: &str) -> Vec<String> {
    let is_six = family == "IPv6";
    let fits = |text: &String| text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == is_six);
    addresses(pod).into_iter().filter(fits).collect()
}

/// The families in which a Service has endpoints.
pub fn families(service: &Service) -> Vec<String> {
    let told = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if told.is_empty() { vec!["IPv4".into()] } else { told }
}

/// The name that the pod has below the Service's in DNS.
pub fn hostname_of(pod: &Pod, service: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain.as_deref() == Some(service)).then_some(hostname)
}

/// The Service's ports as numbers of this pod. Ports whose names the pod does not have are left out.
pub fn ports_of(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let mut found: Vec<Port> = ports.into_iter().flatten().filter_map(|port| resolve(port, pod)).collect();
    found.sort();
    found
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) if name.is_empty() => port.port,
        Some(IntOrString::String(name)) => named_port(pod, name, protocol)?,
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol.to_owned(),
        number,
        app_protocol: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let fits = |protocol_of: Option<&str>| protocol_of.unwrap_or("TCP") == protocol;
    let found = ports.find(|port| port.name.as_deref() == Some(name) && fits(port.protocol.as_deref()));
    found.map(|port| port.container_port)
}

/// Whether a change of a pod can change endpoints, its labels aside.
pub fn differs(old: &Pod, new: &Pod) -> bool {
    let look = |pod: &Pod| {
        (pods::is_ready(pod), pod.metadata.deletion_timestamp.is_some(), pods::is_finished(pod), addresses(pod))
    };
    look(old) != look(new) || pods::node_name(old) != pods::node_name(new) || old.metadata.uid != new.metadata.uid
}
