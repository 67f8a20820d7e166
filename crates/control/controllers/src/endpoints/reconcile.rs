//! Watches Services, pods and slices, and writes the slices.

use super::plan::{differs, selector_of};
use super::slices::{self, MANAGED_BY, MANAGER, SERVICE_NAME};
use super::topology::{self, ZONE};
use crate::context::Context;
use crate::expectations::Expectations;
use crate::ownership::labels_of;
use parking_lot::Mutex;
use pintle_client::{Client, ClientError, DeleteOptions, unless_missing};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Node, Pod, Service};
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use pintle_types::{Kind, ObjectKey};
use std::collections::HashMap;
use std::sync::Arc;

const WORKERS: usize = 5;
const BY_SERVICE: &str = "service";

/// Values for the index of managed slices by their Service.
fn service_of(slice: &EndpointSlice) -> Vec<String> {
    service_key(slice).map(|key| key.to_string()).into_iter().collect()
}

fn service_key(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.label(SERVICE_NAME).filter(|_| slice.label(MANAGED_BY) == Some(MANAGER))?;
    Some(ObjectKey::new(slice.namespace(), name))
}

/// Adds the Services that select a pod, before or after a change, to a queue.
pub fn queue_services_of(change: &Change<Pod>, services: &Informer<Service>, queue: &Queue<ObjectKey>) {
    let (old, new) = (change.old(), change.new());
    let changed = match (old, new) {
        (Some(old), Some(new)) => differs(old, new),
        _ => true,
    };
    let moved = old.map(|pod| &pod.metadata.labels) != new.map(|pod| &pod.metadata.labels);
    if !changed && !moved {
        return;
    }
    for service in services.in_namespace(change.object().namespace()) {
        let Some(selector) = selector_of(&service) else { continue };
        let selects = |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| selector.matches(labels_of(&pod.metadata)));
        if selects(old) || selects(new) {
            queue.add(service.key());
        }
    }
}

struct Controller {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    expectations: Arc<Expectations>,
    /// The Services that ask for hints by the shares of zones, and whether they have any.
    shared: Arc<Mutex<HashMap<ObjectKey, bool>>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let controller = Controller {
        services: context.informers.of(),
        pods: context.informers.of(),
        nodes: context.informers.of(),
        slices: context.informers.of(),
        expectations: Arc::default(),
        shared: Arc::default(),
        context: context.clone(),
    };
    let queue: Queue<ObjectKey> = Queue::new();
    controller.slices.index(BY_SERVICE, service_of);
    let services = queue.clone();
    controller.services.on_change(move |change| services.add(change.object().key()));
    let (services, from_pods) = (controller.services.clone(), queue.clone());
    controller.pods.on_change(move |change| queue_services_of(change, &services, &from_pods));
    let (expectations, from_slices) = (controller.expectations.clone(), queue.clone());
    controller.slices.on_change(move |change| {
        let Some(key) = service_key(change.object()) else { return };
        match change {
            Change::Added(_) => expectations.created(&key),
            Change::Deleted(slice) => expectations.deleted(&key, slice.uid()),
            Change::Modified(..) => (),
        }
        from_slices.add(key);
    });
    let (services, from_nodes, shared) = (controller.services.clone(), queue.clone(), controller.shared.clone());
    controller.nodes.on_change(move |change| {
        let weight = |node: Option<&Arc<Node>>| node.and_then(|node| topology::weight(node));
        if weight(change.old()) != weight(change.new()) {
            shared.lock().keys().for_each(|service| from_nodes.add(service.clone()));
        }
        let zone = |node: Option<&Arc<Node>>| node.and_then(|node| node.label(ZONE).map(str::to_owned));
        if change.old().is_some() && zone(change.old()) != zone(change.new()) {
            services.list().iter().for_each(|service| from_nodes.add(service.key()));
        }
    });
    controller.services.synced().await;
    controller.pods.synced().await;
    controller.nodes.synced().await;
    controller.slices.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("endpointslice-controller", queue.clone(), WORKERS, reconcile, context.stop).await;
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(service) = self.services.get(&key) else {
            // The garbage collector takes the slices with their owner.
            self.expectations.forget(&key);
            self.shared.lock().remove(&key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector_of(&service).filter(|_| !service.is_deleting()) else { return Ok(Outcome::Done) };
        if let Some(left) = self.expectations.left(&key) {
            return Ok(Outcome::After(left));
        }
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selector.matches(labels_of(&pod.metadata)));
        let zone = |node: &str| {
            let node = self.nodes.get(&ObjectKey::new("", node))?;
            node.label(ZONE).map(str::to_owned)
        };
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let existing = existing.into_iter().filter(|slice| !slice.is_deleting()).collect();
        let mut changes = slices::plan(&service, &pods, existing, zone, || topology::shares(&self.nodes.list()));
        let hinted = std::mem::take(&mut changes.hinted);
        let result = apply(&self.context.client, &self.expectations, &key, changes).await;
        // A conflict only says that the cache is behind, which the next event mends.
        if let Err(error) = result.as_ref()
            && !error.is_conflict()
        {
            let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
            let recorder = &self.context.recorder;
            recorder.event(&*service, EventType::Warning, "FailedToUpdateEndpointSlices", message);
        }
        self.tell_hints(&service, hinted);
        result.map(|()| Outcome::Done)
    }

    /// Tells when hints by the shares of zones come, and why there are none.
    fn tell_hints(&self, service: &Service, hinted: Vec<(String, Result<(), String>)>) {
        let had = self.shared.lock().remove(&service.key());
        let has = hinted.iter().any(|(_, done)| done.is_ok());
        let tell = |type_, reason, message: &str, family: &str| {
            let message = format!("{message}, addressType: {family}");
            self.context.recorder.event(service, type_, reason, message);
        };
        if hinted.is_empty() {
            if had == Some(true) {
                for family in super::plan::families(service) {
                    let message = "Topology Aware Hints has been disabled";
                    tell(EventType::Warning, "TopologyAwareHintsDisabled", message, &family);
                }
            }
            return;
        }
        for (family, done) in hinted {
            match done {
                Err(why) => tell(EventType::Warning, "TopologyAwareHintsDisabled", &why, &family),
                Ok(()) if had != Some(true) => {
                    let message = "Topology Aware Hints has been enabled";
                    tell(EventType::Normal, "TopologyAwareHintsEnabled", message, &family);
                }
                Ok(()) => {}
            }
        }
        self.shared.lock().insert(service.key(), has);
    }
}

/// Writes the changes of the slices of one Service, and waits to see them before the next.
pub async fn apply(
    client: &Client,
    expectations: &Expectations,
    key: &ObjectKey,
    changes: slices::Changes,
) -> Result<(), ClientError> {
    let gone = changes.delete.iter().map(|slice| slice.uid().to_owned());
    expectations.expect(key, changes.create.len(), gone);
    for (done, slice) in changes.create.iter().enumerate() {
        if let Err(error) = client.create(slice).await {
            expectations.forget(key);
            tracing::debug!(done, "of {} slices", changes.create.len());
            return if error.is_namespace_terminating() { Ok(()) } else { Err(error) };
        }
    }
    for slice in &changes.update {
        if let Err(error) = client.update(slice).await {
            expectations.forget(key);
            return Err(error);
        }
    }
    for slice in &changes.delete {
        let options = DeleteOptions::of_uid(slice.uid());
        let deleted = client.delete::<EndpointSlice>(slice.namespace(), slice.name(), &options).await;
        if let Err(error) = unless_missing(deleted) {
            expectations.forget(key);
            return Err(error);
        }
    }
    Ok(())
}
