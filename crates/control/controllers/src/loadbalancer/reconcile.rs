//! Watches Services, nodes and slices, and writes the addresses into the status of Services.

use super::plan::{self, addresses, is_before, is_ours, ports, reserved};
use crate::context::Context;
use pintle_client::{ClientError, Patch, PatchOptions, unless_missing};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Node, Service};
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::sync::Arc;

/// Services of ours by the ports that they take.
const BY_PORT: &str = "balancer-port";
/// All Services of ours.
const OURS: &str = "balancer";
/// Slices by their Service, whoever manages them.
const BY_SERVICE: &str = "any-service";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

struct Balancer {
    context: Context,
    services: Informer<Service>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let queue: Queue<ObjectKey> = Queue::new();
    let balancer = Balancer {
        services: context.informers.of::<Service>(),
        nodes: context.informers.of::<Node>(),
        slices: context.informers.of::<EndpointSlice>(),
        context,
    };
    balancer.watch(&queue);
    balancer.services.synced().await;
    balancer.nodes.synced().await;
    balancer.slices.synced().await;
    let stop = balancer.context.stop.clone();
    run_reconciler("service-lb-controller", queue, 1, |key| balancer.reconcile(key), stop).await;
}

impl Balancer {
    fn watch(&self, queue: &Queue<ObjectKey>) {
        self.services.index(BY_PORT, |service| if is_ours(service) { ports(service) } else { Vec::new() });
        self.services.index(OURS, |service| Vec::from_iter(is_ours(service).then(String::new)));
        self.slices.index(BY_SERVICE, |slice| Vec::from_iter(service_of(slice).map(|key| key.to_string())));
        let (to, services) = (queue.clone(), self.services.clone());
        self.services.on_change(move |change: &Change<Service>| {
            let touched = [change.old(), change.new()].into_iter().flatten();
            // Of two that want one port, the other one may have it now.
            for service in touched
                .filter(|service| service.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer")))
            {
                to.add(service.key());
                for port in ports(service) {
                    services.by_index(BY_PORT, &port).iter().for_each(|other| to.add(other.key()));
                }
            }
        });
        let (to, services) = (queue.clone(), self.services.clone());
        self.nodes.on_change(move |change: &Change<Node>| {
            if change.old().map(|node| facts(node)) != change.new().map(|node| facts(node)) {
                services.by_index(OURS, "").iter().for_each(|service| to.add(service.key()));
            }
        });
        let (to, services) = (queue.clone(), self.services.clone());
        self.slices.on_change(move |change: &Change<EndpointSlice>| {
            let owner = service_of(change.object()).and_then(|key| services.get(&key));
            if let Some(service) = owner.filter(|service| is_ours(service)) {
                to.add(service.key());
            }
        });
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(service) = self.services.get(&key) else { return Ok(Outcome::Done) };
        let spec = service.spec.as_ref();
        if !is_ours(&service) {
            // The API server empties the status of what is no load balancer any more; others write that of theirs.
            return Ok(Outcome::Done);
        }
        let nodes = self.nodes.list();
        let wanted = match self.hindrance(&service, &nodes) {
            Some(message) => {
                self.context.recorder.event(&*service, EventType::Warning, "PortInUse", &message);
                Vec::new()
            }
            None => addresses(&service, &nodes, &self.slices.by_index(BY_SERVICE, &key.to_string())),
        };
        // A client that asks for one address is only told that one.
        let asked = spec.and_then(|spec| spec.load_balancer_ip.clone()).filter(|asked| !asked.is_empty());
        let wanted: Vec<String> =
            wanted.into_iter().filter(|ip| asked.as_ref().is_none_or(|asked| asked == ip)).collect();
        let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let present: Vec<&str> = ingress.into_iter().flatten().filter_map(|one| one.ip.as_deref()).collect();
        if present == wanted {
            return Ok(Outcome::Done);
        }
        self.write(&service, &wanted).await
    }

    /// Why a Service can't have its ports.
    fn hindrance(&self, service: &Service, nodes: &[Arc<Node>]) -> Option<String> {
        let kubernetes = self.services.get(&ObjectKey::new("default", "kubernetes"));
        let reserved = reserved(nodes, kubernetes.as_deref());
        ports(service).into_iter().find_map(|port| {
            if reserved.contains(&port) {
                return Some(format!("port {port} of the nodes is used by the cluster itself"));
            }
            let holders = self.services.by_index(BY_PORT, &port);
            let holder = holders.iter().find(|other| other.key() != service.key() && is_before(other, service))?;
            Some(format!("port {port} of the nodes is used by service {}", holder.key()))
        })
    }

    async fn write(&self, service: &Service, addresses: &[String]) -> Result<Outcome, ClientError> {
        let ingress: Value = addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let ingress = if addresses.is_empty() { Value::Null } else { ingress };
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        let options = PatchOptions { subresource: "status".into(), ..PatchOptions::default() };
        let client = &self.context.client;
        unless_missing(client.patch::<Service>(service.namespace(), service.name(), patch, &options).await)?;
        Ok(Outcome::Done)
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    Some(ObjectKey::new(slice.namespace(), slice.label(SERVICE_LABEL)?))
}

/// What of a node decides about its addresses, without what changes with every heartbeat.
fn facts(node: &Node) -> (Vec<(String, String)>, bool, bool, usize) {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    (
        addresses.iter().map(|one| (one.type_.clone(), one.address.clone())).collect(),
        crate::node::is_ready(node),
        node.label(plan::EXCLUDED_LABEL).is_some(),
        node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).map_or(0, Vec::len),
    )
}
