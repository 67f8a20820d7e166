//! Hears of Services and EndpointSlices and keeps the kernel in step.

use crate::apply::{Error, Kernel};
use crate::collect::{Place, SERVICE_LABEL, check_of, endpoints_of, ports_of};
use crate::health::{Check, Checks};
use crate::ledger::{Changes, Ledger};
use crate::plan::{ServiceRules, plan};
use crate::rules::Ranges;
use ipnet::IpNet;
use pintle_informer::{Change, Informer, Informers};
use pintle_netlink::nft::Family;
use pintle_types::k8s::api::core::v1::{Node, Service};
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use pintle_types::{Kind, ObjectKey};
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The index of slices by the key of their service; the same for all who have one, as the informer then keeps one only.
const BY_SERVICE: &str = "service";
/// Of a node: where it is.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// How long after a refusal the whole table is tried again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// What the proxy of a node needs to know.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The name of this node, as EndpointSlices have it.
    pub node_name: String,
    /// The node's `topology.kubernetes.io/zone`, until its Node object tells.
    pub zone: Option<String>,
    /// The ranges of all pods of the cluster: services of their families are proxied. Clients of cluster addresses from
    /// elsewhere are masqueraded.
    pub pod_subnets: Vec<IpNet>,
    /// The ranges of cluster addresses: packets to those that no service has are dropped.
    pub service_subnets: Vec<IpNet>,
}

/// Where services and their slices are read.
pub trait Objects {
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>>;
    /// The slices of the service of this key.
    fn slices(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>>;
}

/// Proxies services until `stop`. The rules stay in the kernel then, so that a restart interrupts nobody.
///
/// # Errors
/// When the kernel cannot be spoken to at all. A refused transaction is tried again as a whole.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) -> Result<(), Error> {
    // Opened here, so that a kernel without nf_tables is noticed at once and not at the first service.
    let kernel = Kernel::open()?;
    let cache = Cache {
        services: informers.of::<Service>(),
        slices: informers.of::<EndpointSlice>(),
        nodes: informers.of::<Node>(),
        own_node: ObjectKey::new("", &config.node_name),
    };
    let dirty = Arc::new(Dirty::default());
    cache.watch(&dirty);
    tokio::select! {
        () = async { cache.services.synced().await; cache.slices.synced().await } => {}
        () = stop.cancelled() => return Ok(()),
    }
    let mut proxy = Proxy::new(&config, kernel);
    let mut retry = RETRY_FIRST;
    let mut checks = Checks::default();
    loop {
        let keys = cache.with_zone(dirty.take(), &mut proxy);
        let (returned, result) = tokio::task::spawn_blocking({
            let cache = cache.clone();
            move || {
                let result = proxy.update(keys, &cache);
                (proxy, result)
            }
        })
        .await?;
        proxy = returned;
        for (key, check) in proxy.take_checks() {
            checks.set(&key, check, &stop);
        }
        let pause = match result {
            Ok(()) => {
                retry = RETRY_FIRST;
                None
            }
            Err(error) => {
                tracing::error!(%error, retry_seconds = retry.as_secs_f32(), "cannot program services");
                let now = retry;
                retry = (retry * 2).min(RETRY_MOST);
                Some(now)
            }
        };
        tokio::select! {
            () = dirty.wait(), if pause.is_none() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Services waiting to be looked at.
#[derive(Debug, Default)]
struct Dirty {
    keys: Mutex<HashSet<ObjectKey>>,
    wake: Notify,
}

impl Dirty {
    fn add(&self, key: ObjectKey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.wake.notify_one();
    }

    fn take(&self) -> HashSet<ObjectKey> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn wait(&self) {
        self.wake.notified().await;
    }
}

/// The informers as the source of objects.
#[derive(Clone)]
struct Cache {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    own_node: ObjectKey,
}

impl Cache {
    fn watch(&self, dirty: &Arc<Dirty>) {
        self.slices.index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
        let of_services = Arc::clone(dirty);
        self.services.on_change(move |change| of_services.add(change.object().key()));
        let of_slices = Arc::clone(dirty);
        self.slices.on_change(move |change: &Change<EndpointSlice>| {
            // A slice can change hands: both services are looked at.
            for slice in [change.old(), change.new()].into_iter().flatten() {
                if let Some(key) = service_of(slice) {
                    of_slices.add(key);
                }
            }
        });
        let (of_nodes, own) = (Arc::clone(dirty), self.own_node.clone());
        self.nodes.on_change(move |change: &Change<Node>| {
            let zone = |node: Option<&Arc<Node>>| node.and_then(|node| node.label(ZONE_LABEL).map(str::to_owned));
            if change.object().key() == own && zone(change.old()) != zone(change.new()) {
                of_nodes.wake.notify_one();
            }
        });
    }

    /// When the node is in another zone now, all services are looked at again: what is near has changed.
    fn with_zone(&self, mut keys: HashSet<ObjectKey>, proxy: &mut Proxy) -> HashSet<ObjectKey> {
        let node = self.nodes.get(&self.own_node);
        // A node that is not known (any more) stays where it was.
        if let Some(zone) = node.map(|node| node.label(ZONE_LABEL).map(str::to_owned))
            && zone != proxy.place.zone
        {
            proxy.place.zone = zone;
            keys.extend(self.services.list().iter().map(|service| service.key()));
        }
        keys
    }
}

impl Objects for Cache {
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.services.get(key)
    }

    fn slices(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &key.to_string())
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    Some(ObjectKey::new(slice.namespace(), slice.label(SERVICE_LABEL)?))
}

/// The proxy of a node: what the kernel has, and how to bring it up to date.
#[derive(Debug)]
pub struct Proxy {
    kernel: Kernel,
    tables: Vec<FamilyTable>,
    place: Place,
    /// What load balancers are told about services that were looked at.
    checks: Vec<(ObjectKey, Option<Check>)>,
}

/// What the kernel has for the packets of one family.
#[derive(Debug)]
struct FamilyTable {
    family: Family,
    ranges: Ranges,
    ledger: Ledger,
    /// The kernel's table is not known to be what the ledger says: at start, and after a refusal.
    unknown: bool,
}

impl Proxy {
    pub fn new(config: &Config, kernel: Kernel) -> Self {
        let ranges = Ranges { pods: config.pod_subnets.clone(), services: config.service_subnets.clone() };
        let families: BTreeSet<Family> = config.pod_subnets.iter().map(|net| Family::of(net.addr())).collect();
        let table = |family| {
            let (ranges, ledger) = (ranges.of(family), Ledger::default());
            FamilyTable { family, ranges, ledger, unknown: true }
        };
        Self {
            kernel,
            tables: families.into_iter().map(table).collect(),
            place: Place { node: config.node_name.clone(), zone: config.zone.clone() },
            checks: Vec::new(),
        }
    }

    /// Looks at these services again and changes what has to change, in one transaction for each family. Blocks.
    ///
    /// # Errors
    /// When the kernel refuses; the next call then puts the whole table in place.
    pub fn update(&mut self, keys: impl IntoIterator<Item = ObjectKey>, objects: &dyn Objects) -> Result<(), Error> {
        let mut wanted: Vec<Vec<_>> = self.tables.iter().map(|_| Vec::new()).collect();
        for key in keys {
            let (service, slices) = (objects.service(&key), objects.slices(&key));
            let check = service.as_ref().and_then(|found| check_of(found, slices.iter().map(Arc::as_ref), &self.place));
            self.checks.push((key.clone(), check));
            for (table, wanted) in self.tables.iter().zip(&mut wanted) {
                let rules = service.as_ref().map(|service| table.wanted(service, &slices, &self.place));
                wanted.push((key.clone(), rules));
            }
        }
        let mut result = Ok(());
        for (table, wanted) in self.tables.iter_mut().zip(wanted) {
            // What one family is refused, the other one need not wait for.
            result = result.and(table.update(&mut self.kernel, wanted));
        }
        result
    }

    /// Removes the tables, as a reset does.
    pub fn remove_all(&mut self) -> Result<(), Error> {
        for table in &mut self.tables {
            table.unknown = true;
        }
        self.kernel.remove_all()
    }

    fn take_checks(&mut self) -> Vec<(ObjectKey, Option<Check>)> {
        std::mem::take(&mut self.checks)
    }
}

impl FamilyTable {
    fn wanted(&self, service: &Service, slices: &[Arc<EndpointSlice>], place: &Place) -> ServiceRules {
        let ports = ports_of(service, self.family).into_iter().map(|port| {
            let endpoints = endpoints_of(self.family, &port, slices.iter().map(Arc::as_ref), place);
            (port, endpoints)
        });
        plan(&ports.collect::<Vec<_>>())
    }

    fn update(&mut self, kernel: &mut Kernel, wanted: Vec<(ObjectKey, Option<ServiceRules>)>) -> Result<(), Error> {
        let changes = self.ledger.replace(wanted);
        if !self.unknown {
            if changes.is_empty() {
                return Ok(());
            }
            match kernel.change(self.family, &changes, &self.ranges) {
                Ok(()) => return Ok(()),
                // Somebody changed our table. Putting it back as a whole is the answer to whatever it was.
                Err(error) => tracing::warn!(%error, "the service table is not as it was left; replacing it"),
            }
        }
        self.unknown = true;
        let everything =
            Changes { gone_datagram_endpoints: changes.gone_datagram_endpoints, ..self.ledger.everything() };
        kernel.replace(self.family, &everything, &self.ranges)?;
        self.unknown = false;
        Ok(())
    }
}
