//! Mirrors the Endpoints that people write, of Services without a selector, into slices.

use super::plan::Port;
use super::reconcile::apply;
use super::slices::{self, Changes, MANAGED_BY, SERVICE_NAME};
use crate::context::Context;
use crate::expectations::Expectations;
use crate::ownership::controller_ref;
use pintle_client::ClientError;
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use pintle_types::k8s::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use pintle_types::{Kind, ObjectKey, ObjectMeta};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say nothing of the addresses.
const UNCOPIED: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];
/// Addresses of a subset that are mirrored at most.
const LARGEST: usize = 1000;
const BY_SERVICE: &str = "mirrored-service";

struct Controller {
    context: Context,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    expectations: Arc<Expectations>,
}

fn mirrored(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.label(SERVICE_NAME).filter(|_| slice.label(MANAGED_BY) == Some(MANAGER))?;
    Some(ObjectKey::new(slice.namespace(), name))
}

fn service_of(slice: &EndpointSlice) -> Vec<String> {
    mirrored(slice).map(|key| key.to_string()).into_iter().collect()
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let controller = Controller {
        services: context.informers.of(),
        endpoints: context.informers.of(),
        slices: context.informers.of(),
        expectations: Arc::default(),
        context: context.clone(),
    };
    controller.slices.index(BY_SERVICE, service_of);
    let queue: Queue<ObjectKey> = Queue::new();
    let from_endpoints = queue.clone();
    controller.endpoints.on_change(move |change| from_endpoints.add(change.object().key()));
    let from_services = queue.clone();
    controller.services.on_change(move |change| from_services.add(change.object().key()));
    let (expectations, from_slices) = (controller.expectations.clone(), queue.clone());
    controller.slices.on_change(move |change| {
        let Some(key) = mirrored(change.object()) else { return };
        match change {
            Change::Added(_) => expectations.created(&key),
            Change::Deleted(slice) => expectations.deleted(&key, slice.uid()),
            Change::Modified(..) => (),
        }
        from_slices.add(key);
    });
    controller.services.synced().await;
    controller.endpoints.synced().await;
    controller.slices.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("endpointslicemirroring-controller", queue, 5, reconcile, context.stop.clone()).await;
}

/// Whether somebody else takes care of these Endpoints, or they are none.
fn is_skipped(endpoints: &Endpoints) -> bool {
    endpoints.label(SKIP) == Some("true") || endpoints.annotation(LEADER).is_some()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        if let Some(left) = self.expectations.left(&key) {
            return Ok(Outcome::After(left));
        }
        let selects = |service: &Service| service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
        let is_wanted = self.services.get(&key).is_some_and(|service| !selects(&service));
        let endpoints = self.endpoints.get(&key).filter(|endpoints| is_wanted && !is_skipped(endpoints));
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let changes = plan(endpoints.as_deref(), existing);
        let result = apply(&self.context.client, &self.expectations, &key, changes).await;
        if let (Err(error), Some(endpoints)) = (&result, &endpoints)
            && !error.is_conflict()
        {
            let message = format!("Error updating Endpoint Slices for Endpoints {key}: {error}");
            let recorder = &self.context.recorder;
            recorder.event(&**endpoints, EventType::Warning, "FailedToUpdateEndpointSlices", message);
        }
        result.map(|()| Outcome::Done)
    }
}

type Groups = BTreeMap<(String, Vec<Port>), Vec<Endpoint>>;

/// Compares the slices there are with those that the Endpoints make.
pub fn plan(endpoints: Option<&Endpoints>, existing: Vec<Arc<EndpointSlice>>) -> Changes {
    let mut changes = Changes::default();
    let mut groups = endpoints.map(group).unwrap_or_default();
    for slice in existing.into_iter().filter(|slice| !slice.is_deleting()) {
        let found = groups.remove_entry(&(slice.address_type.clone(), slices::ports_in(&slice)));
        let (Some(endpoints), Some((key, wanted))) = (endpoints, found) else {
            changes.delete.push(slice);
            continue;
        };
        let new = slice_of(endpoints, key, wanted);
        let mut changed = EndpointSlice::clone(&slice);
        (changed.endpoints, changed.metadata.labels) = (new.endpoints, new.metadata.labels);
        changed.metadata.annotations = new.metadata.annotations;
        if changed != *slice {
            changes.update.push(changed);
        }
    }
    if let Some(endpoints) = endpoints {
        changes.create.extend(groups.into_iter().map(|(key, wanted)| slice_of(endpoints, key, wanted)));
    }
    changes
}

fn group(endpoints: &Endpoints) -> Groups {
    let mut groups = Groups::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports_of(subset);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(unready).take(LARGEST) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            groups.entry((family.to_owned(), ports.clone())).or_default().push(endpoint(address, ready));
        }
    }
    groups
}

fn ports_of(subset: &EndpointSubset) -> Vec<Port> {
    let port = |port: &pintle_types::k8s::api::core::v1::EndpointPort| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        number: port.port,
        app_protocol: port.app_protocol.clone(),
    };
    let mut ports: Vec<Port> = subset.ports.iter().flatten().map(port).collect();
    ports.sort();
    ports
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice_of(endpoints: &Endpoints, key: (String, Vec<Port>), wanted: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), endpoints.name().to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !UNCOPIED.contains(&name.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: Some(endpoints.namespace().to_owned()),
            generate_name: Some(format!("{}-", endpoints.name())),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![controller_ref(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: key.0,
        ports: Some(key.1.iter().map(slices::port_of).collect()),
        endpoints: Some(wanted),
    }
}
