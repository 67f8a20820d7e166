//! Lays endpoints out in slices of at most a hundred, moving as few of them as possible.

use super::plan::{self, Port};
use super::topology::{self, Shares};
use crate::ownership::controller_ref;
use crate::pods;
use pintle_types::k8s::api::core::v1::{Pod, Service};
use pintle_types::k8s::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use pintle_types::{Kind, ObjectMeta};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Endpoints in a slice at most.
pub const LARGEST: usize = 100;

/// What to do about a Service's slices.
#[derive(Debug, Default)]
pub struct Changes {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Where hints by the shares of zones were asked for: each family, and why it has none.
    pub hinted: Vec<(String, Result<(), String>)>,
}

/// Endpoints that have the same family and ports, and so may share slices.
type Groups = BTreeMap<(String, Vec<Port>), Vec<Endpoint>>;

/// Compares the slices there are with the pods that there should be slices for. `zone` tells a node's zone, `shares` the
/// shares of zones for Services that ask for hints by them.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: Vec<Arc<EndpointSlice>>,
    zone: impl Fn(&str) -> Option<String>,
    shares: impl FnOnce() -> Option<Shares>,
) -> Changes {
    let mut groups = group(service, pods, zone);
    let mut changes = Changes::default();
    if topology::is_auto(service) {
        changes.hinted = hint_by_shares(service, &mut groups, &existing, shares());
    }
    let mut present: BTreeMap<(String, Vec<Port>), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        present.entry((slice.address_type.clone(), ports_in(&slice))).or_default().push(slice);
    }
    // A family without endpoints keeps one empty slice, which tells that somebody looked.
    for family in plan::families(service) {
        if groups.keys().any(|(of, _)| *of == family) {
            continue;
        }
        let kept = present.keys().find(|(of, _)| *of == family).cloned();
        groups.insert(kept.unwrap_or((family, Vec::new())), Vec::new());
    }
    for (key, wanted) in groups {
        lay_out(service, &key, wanted, present.remove(&key).unwrap_or_default(), &mut changes);
    }
    changes.delete.extend(present.into_values().flatten());
    changes
}

/// Hints for all endpoints of each family together.
fn hint_by_shares(
    service: &Service,
    groups: &mut Groups,
    existing: &[Arc<EndpointSlice>],
    shares: Option<Shares>,
) -> Vec<(String, Result<(), String>)> {
    let of_family = |family: String| {
        let slices = existing.iter().filter(|slice| slice.address_type == family);
        let before: BTreeMap<_, _> =
            slices.flat_map(|slice| slice.endpoints.iter().flatten()).filter_map(hinted).collect();
        let mut endpoints: Vec<&mut Endpoint> =
            groups.iter_mut().filter(|((of, _), _)| *of == family).flat_map(|(_, endpoints)| endpoints).collect();
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        let known = |endpoint: &Endpoint| before.get(&identity(endpoint)).map(|zone| (*zone).to_owned());
        let done = topology::hint(&mut endpoints, shares.as_ref(), known, before.len());
        (family, done)
    };
    plan::families(service).into_iter().map(of_family).collect()
}

/// The zone that an endpoint is meant for.
fn hinted(endpoint: &Endpoint) -> Option<((Option<&str>, &[String]), &str)> {
    let zone = endpoint.hints.as_ref()?.for_zones.as_ref()?.first()?;
    Some((identity(endpoint), &zone.name))
}

fn group(service: &Service, pods: &[Arc<Pod>], zone: impl Fn(&str) -> Option<String>) -> Groups {
    let mut groups = Groups::new();
    for pod in pods.iter().filter(|pod| plan::counts(pod, true)) {
        let ports = plan::ports_of(service, pod);
        if ports.is_empty() && service.spec.as_ref().is_some_and(|spec| spec.ports.iter().flatten().count() > 0) {
            continue;
        }
        for family in plan::families(service) {
            let addresses = plan::addresses_of(pod, &family);
            if !addresses.is_empty() {
                let endpoint = endpoint(service, pod, addresses, &zone);
                groups.entry((family, ports.clone())).or_default().push(endpoint);
            }
        }
    }
    groups
}

fn endpoint(service: &Service, pod: &Pod, addresses: Vec<String>, zone: impl Fn(&str) -> Option<String>) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pod.is_deleting());
    let ready = plan::publishes_not_ready(service) || (serving && !terminating);
    let (node, zone) = (pods::node_name(pod), zone(pods::node_name(pod)));
    Endpoint {
        hints: if ready { hints(service, node, zone.as_deref()) } else { None },
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: plan::hostname_of(pod, service.name()),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(pods::reference(pod)),
        zone,
        ..Endpoint::default()
    }
}

/// For whom an endpoint is meant first, as the Service wants its traffic to be distributed.
fn hints(service: &Service, node: &str, zone: Option<&str>) -> Option<EndpointHints> {
    if topology::is_auto(service) {
        return None;
    }
    let wanted = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let nodes = (wanted == "PreferSameNode" && !node.is_empty()).then(|| vec![ForNode { name: node.to_owned() }]);
    let known = matches!(wanted, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    let found = known && (zones.is_some() || nodes.is_some());
    found.then_some(EndpointHints { for_nodes: nodes, for_zones: zones })
}

/// The ports of a slice.
pub fn ports_in(slice: &EndpointSlice) -> Vec<Port> {
    let port = |port: &EndpointPort| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_default(),
        number: port.port.unwrap_or_default(),
        app_protocol: port.app_protocol.clone(),
    };
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(port).collect();
    ports.sort();
    ports
}

fn identity(endpoint: &Endpoint) -> (Option<&str>, &[String]) {
    (endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()), &endpoint.addresses)
}

/// Keeps endpoints where they are, fills the gaps with new ones, and makes new slices for the rest.
fn lay_out(
    service: &Service,
    key: &(String, Vec<Port>),
    mut wanted: Vec<Endpoint>,
    existing: Vec<Arc<EndpointSlice>>,
    changes: &mut Changes,
) {
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in existing {
        let mut endpoints = Vec::new();
        for old in slice.endpoints.iter().flatten() {
            if let Some(at) = wanted.iter().position(|new| identity(new) == identity(old)) {
                endpoints.push(wanted.swap_remove(at));
            }
        }
        kept.push((slice, endpoints));
    }
    wanted.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    let mut rest = wanted.into_iter();
    for (slice, endpoints) in &mut kept {
        // A slice that stays as it is would have to be written for every newcomer.
        let changed = slice.endpoints.as_ref() != Some(endpoints);
        if changed || rest.len() < LARGEST {
            let room = LARGEST.saturating_sub(endpoints.len());
            endpoints.extend(rest.by_ref().take(room));
        }
    }
    let rest: Vec<Endpoint> = rest.collect();
    let empty_needed = rest.is_empty() && kept.iter().all(|(_, endpoints)| endpoints.is_empty());
    let mut empty_kept = false;
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && (!empty_needed || empty_kept) {
            changes.delete.push(slice);
            continue;
        }
        empty_kept |= endpoints.is_empty();
        changes.update.extend(changed_slice(service, &slice, endpoints));
    }
    if empty_needed && !empty_kept {
        changes.create.push(new_slice(service, key, Vec::new()));
    }
    changes.create.extend(rest.chunks(LARGEST).map(|chunk| new_slice(service, key, chunk.to_vec())));
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), service.name().to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.remove(HEADLESS);
    if plan::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// The slice with other endpoints; nothing when it would stay the same.
fn changed_slice(service: &Service, slice: &EndpointSlice, endpoints: Vec<Endpoint>) -> Option<EndpointSlice> {
    let labels = labels(service);
    let same =
        slice.endpoints.as_deref().unwrap_or_default() == endpoints && slice.metadata.labels.as_ref() == Some(&labels);
    if same {
        return None;
    }
    let mut changed = slice.clone();
    changed.endpoints = Some(endpoints);
    changed.metadata.labels = Some(labels);
    Some(changed)
}

fn new_slice(service: &Service, key: &(String, Vec<Port>), endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: Some(service.namespace().to_owned()),
            generate_name: Some(format!("{}-", service.name())),
            labels: Some(labels(service)),
            owner_references: Some(vec![controller_ref(service)]),
            ..ObjectMeta::default()
        },
        address_type: key.0.clone(),
        ports: Some(key.1.iter().map(port_of).collect()),
        endpoints: Some(endpoints),
    }
}

/// A port in the form of slices.
pub fn port_of(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.number),
        app_protocol: port.app_protocol.clone(),
    }
}
