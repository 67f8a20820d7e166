//! Writes `v1` Endpoints, the older form of EndpointSlices.

use super::plan::{self, Port, selector_of};
use super::reconcile::queue_services_of;
use super::slices::HEADLESS;
use crate::context::Context;
use crate::ownership::labels_of;
use crate::pods;
use pintle_client::{ClientError, DeleteOptions, unless_missing};
use pintle_informer::{Change, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use pintle_types::{Kind, ObjectKey, ObjectMeta};
use std::collections::BTreeMap;
use std::sync::Arc;

const WORKERS: usize = 5;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// Addresses that an object holds at most.
const LARGEST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

struct Controller {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let controller = Controller {
        services: context.informers.of(),
        pods: context.informers.of(),
        endpoints: context.informers.of(),
        context: context.clone(),
    };
    let queue: Queue<ObjectKey> = Queue::new();
    let services = queue.clone();
    controller.services.on_change(move |change| services.add(change.object().key()));
    let (services, from_pods) = (controller.services.clone(), queue.clone());
    controller.pods.on_change(move |change| queue_services_of(change, &services, &from_pods));
    let from_endpoints = queue.clone();
    controller.endpoints.on_change(move |change| {
        let ours = change.object().label(MANAGED_BY) == Some(MANAGER);
        if ours || matches!(change, Change::Deleted(_)) {
            from_endpoints.add(change.object().key());
        }
    });
    controller.services.synced().await;
    controller.pods.synced().await;
    controller.endpoints.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler(MANAGER, queue.clone(), WORKERS, reconcile, context.stop).await;
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let client = &self.context.client;
        let present = self.endpoints.get(&key);
        let Some(service) = self.services.get(&key) else {
            if let Some(present) = present.filter(|present| present.label(MANAGED_BY) == Some(MANAGER)) {
                let options = DeleteOptions::of_uid(present.uid());
                unless_missing(client.delete::<Endpoints>(&key.namespace, &key.name, &options).await)?;
            }
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector_of(&service) else { return Ok(Outcome::Done) };
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selector.matches(labels_of(&pod.metadata)));
        let (wanted, truncated) = subsets(&service, &pods);
        let old = present.as_deref().cloned().unwrap_or_default();
        let new = object(&service, &old, wanted, truncated);
        if present.is_some() && new == old {
            return Ok(Outcome::Done);
        }
        let result = if present.is_some() { client.update(&new).await } else { client.create(&new).await };
        match result {
            Err(error) if error.is_namespace_terminating() => Ok(Outcome::Done),
            other => other.map(|_| Outcome::Done),
        }
    }
}

fn object(service: &Service, old: &Endpoints, subsets: Vec<EndpointSubset>, truncated: bool) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.remove(HEADLESS);
    if plan::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    let mut annotations = old.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    Endpoints {
        metadata: ObjectMeta {
            name: Some(service.name().to_owned()),
            namespace: Some(service.namespace().to_owned()),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..old.metadata.clone()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// The subsets, and whether some addresses did not fit.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let family = plan::families(service).into_iter().next().unwrap_or_default();
    let publish = plan::publishes_not_ready(service);
    let has_ports = service.spec.as_ref().is_some_and(|spec| spec.ports.iter().flatten().count() > 0);
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let mut count = 0;
    for pod in pods.iter().filter(|pod| plan::counts(pod, publish)) {
        let ports = plan::ports_of(service, pod);
        let Some(address) = plan::addresses_of(pod, &family).into_iter().next() else { continue };
        if ports.is_empty() && has_ports {
            continue;
        }
        count += 1;
        if count > LARGEST {
            break;
        }
        let group = groups.entry(ports).or_default();
        let list = if publish || pods::is_ready(pod) { &mut group.0 } else { &mut group.1 };
        list.push(address_of(service, pod, address));
    }
    let subset = |(ports, (mut ready, mut unready)): (Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>))| {
        ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        unready.sort_by(|a, b| a.ip.cmp(&b.ip));
        EndpointSubset {
            addresses: (!ready.is_empty()).then_some(ready),
            not_ready_addresses: (!unready.is_empty()).then_some(unready),
            ports: (!ports.is_empty()).then(|| ports.into_iter().map(port_of).collect()),
        }
    };
    (groups.into_iter().map(subset).collect(), count > LARGEST)
}

fn port_of(port: Port) -> EndpointPort {
    EndpointPort {
        name: (!port.name.is_empty()).then_some(port.name),
        port: port.number,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

fn address_of(service: &Service, pod: &Pod, ip: String) -> EndpointAddress {
    let node = pods::node_name(pod);
    EndpointAddress {
        ip,
        hostname: plan::hostname_of(pod, service.name()),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(pods::reference(pod)),
    }
}
