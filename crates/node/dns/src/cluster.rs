//! The objects that names are answered from: what is asked of them, and the informers that hold them.

use pintle_informer::{Informer, Informers};
use pintle_types::k8s::api::core::v1::{Namespace, Service};
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;

/// Of an EndpointSlice: the name of its Service.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const BY_ADDRESS: &str = "dns-address";
/// The name and the meaning are the same for all who index slices by service: the informer then keeps one index.
const BY_SERVICE: &str = "service";

/// Where objects are looked up; nothing here walks over all of them.
pub trait Objects: Send + Sync + 'static {
    /// Whether the objects have been read at least once.
    fn is_ready(&self) -> bool;
    fn has_namespace(&self, name: &str) -> bool;
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>>;
    /// The slices of a service.
    fn slices(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>>;
    /// The services that have this cluster address.
    fn services_at(&self, address: &str) -> Vec<Arc<Service>>;
    /// The slices that have an endpoint of this address.
    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>>;
}

/// The informers of a process as the source of objects.
#[derive(Clone)]
pub(crate) struct Cluster {
    namespaces: Informer<Namespace>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

impl Cluster {
    pub(crate) fn new(informers: &Informers) -> Self {
        let cluster =
            Self { namespaces: informers.of(), services: informers.of(), slices: informers.of::<EndpointSlice>() };
        cluster.services.index(BY_ADDRESS, cluster_addresses);
        cluster.slices.index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
        cluster.slices.index(BY_ADDRESS, |slice| {
            slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.addresses.first().cloned()).collect()
        });
        cluster
    }
}

impl Objects for Cluster {
    fn is_ready(&self) -> bool {
        self.namespaces.is_synced() && self.services.is_synced() && self.slices.is_synced()
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(&ObjectKey::new("", name)).is_some()
    }

    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.services.get(key)
    }

    fn slices(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &service.to_string())
    }

    fn services_at(&self, address: &str) -> Vec<Arc<Service>> {
        self.services.by_index(BY_ADDRESS, address)
    }

    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_ADDRESS, address)
    }
}

/// The cluster addresses of a service as text; those of a headless one are not addresses, and nobody asks for them.
pub(crate) fn cluster_addresses(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    match &spec.cluster_ips {
        Some(several) if !several.is_empty() => several.clone(),
        _ => spec.cluster_ip.iter().cloned().collect(),
    }
}

pub(crate) fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    Some(ObjectKey::new(slice.namespace(), slice.label(SERVICE_LABEL)?))
}
