//! Addresses and node ports of Services: which are in use, and who gets which.
//!
//! What is taken lives in memory and is filled from the cache at start. Servers that share a store agree by claims in it;
//! what others made out of date is filled anew when it fails. Which ranges give addresses, ServiceCIDRs say, which are
//! looked at for each Service that needs one.

mod addresses;
mod claims;
mod families;
mod pool;

pub(crate) use claims::Claims;

use crate::cache::Snapshot;
use addresses::{Addresses, family, ready_ranges};
use ipnet::IpNet;
use parking_lot::Mutex;
use pintle_kinds::{ResourceDef, tree};
use pintle_types::Status;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names::GroupKind;
use pool::{Pool, TakeError, band};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What a Service holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holdings {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

#[derive(Debug)]
struct Pools {
    /// The server's own ranges, one for each family that Services can have; the first is the usual one.
    own: Vec<IpNet>,
    node_ports: RangeInclusive<u16>,
    addresses: Addresses,
    ports: Mutex<Pool>,
}

/// The allocator of all Services' addresses and ports.
#[derive(Debug)]
pub(crate) struct Services {
    pools: Arc<Pools>,
}

/// What a write took for a Service: given back unless the write is done, with what the Service no longer holds given
/// back once it is.
#[derive(Default)]
#[must_use]
pub(crate) struct Allocation {
    pools: Option<Arc<Pools>>,
    taken: Holdings,
    dropped: Holdings,
}

impl Allocation {
    /// The write is done.
    pub(crate) fn keep(mut self) {
        self.taken = std::mem::take(&mut self.dropped);
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(pools) = &self.pools {
            pools.give_back(&self.taken);
        }
    }
}

pub(crate) fn is_service(def: &ResourceDef) -> bool {
    def.storage.group.is_empty() && def.storage.resource == "services"
}

impl Services {
    pub(crate) fn new(own: Vec<IpNet>, node_ports: RangeInclusive<u16>, present: &Snapshot) -> Self {
        let ports = Mutex::new(empty_ports(&node_ports));
        let pools = Pools { own, node_ports, addresses: Addresses::default(), ports };
        let services = Self { pools: Arc::new(pools) };
        services.refill(present);
        services
    }

    /// Fills in anew what is taken, where others write too. What is just being given away may be given away again: the
    /// claims in the store tell.
    pub(crate) fn refill(&self, present: &Snapshot) {
        let held: Vec<_> = present.iter().map(|entry| (entry, holdings(&entry.to_value()))).collect();
        *self.pools.ports.lock() = empty_ports(&self.pools.node_ports);
        let mut taken = HashSet::new();
        for (entry, held) in held {
            let twice = held.addresses.into_iter().filter(|address| !taken.insert(*address)).count();
            if twice > 0 {
                tracing::warn!(service = entry.name(), "two services have the same cluster IP");
            }
            for number in held.ports.into_iter().filter_map(|port| self.pools.port_number(port)) {
                if self.pools.ports.lock().take(number).is_err() {
                    tracing::warn!(service = entry.name(), "two services have the same node port");
                }
            }
        }
        self.pools.addresses.refill(taken);
    }

    /// Gives a new or changed Service, in the stored form, what it asks for and what it needs. `objects` are the
    /// ServiceCIDRs.
    pub(crate) fn allocate(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        objects: Option<&Snapshot>,
    ) -> Result<Allocation, Status> {
        if let Some(old) = old {
            families::keep_allocated(service, old);
        }
        let invalid = |errors: ErrorList| {
            let kind = GroupKind { group: String::new(), kind: "Service".into() };
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            Status::invalid(&kind, name, &errors)
        };
        let invalid_field = |error: FieldError| invalid(vec![error]);
        let mut draft = service.clone();
        let configured: Vec<_> = self.pools.own.iter().map(|range| family(range.addr())).collect();
        families::settle(&mut draft, old, &configured).map_err(invalid)?;
        let held = old.map(holdings).unwrap_or_default();
        let mut allocation = Allocation::default();
        allocation.pools = Some(self.pools.clone());
        let wanted = families::lacking(&draft, old);
        if !wanted.is_empty() {
            let ranges = ready_ranges(&self.pools.own, objects);
            let given = self.pools.give_addresses(&mut draft, wanted, &ranges, &held, &mut allocation.taken);
            given.map_err(|e| e.status(invalid_field))?;
        }
        self.pools.give_ports(&mut draft, &held, &mut allocation.taken).map_err(|e| e.status(invalid_field))?;
        self.pools.give_health_port(&mut draft, &held, &mut allocation.taken).map_err(|e| e.status(invalid_field))?;
        let holds = holdings(&draft);
        allocation.dropped = Holdings {
            addresses: held.addresses.difference(&holds.addresses).copied().collect(),
            ports: held.ports.difference(&holds.ports).copied().collect(),
        };
        *service = draft;
        Ok(allocation)
    }

    /// Takes back what a deleted Service held.
    pub(crate) fn release(&self, def: &ResourceDef, service: &Value) {
        if is_service(def) {
            self.pools.give_back(&holdings(service));
        }
    }
}

fn empty_ports(node_ports: &RangeInclusive<u16>) -> Pool {
    let ports = usize::from(node_ports.end().saturating_sub(*node_ports.start())) + 1;
    Pool::new(ports, band(ports, 16, 32, 128))
}

/// What a stored Service holds.
fn holdings(service: &Value) -> Holdings {
    let spec = &service["spec"];
    let addresses = tree::list(spec, "clusterIPs").iter().filter_map(|ip| ip.as_str()?.parse().ok());
    // Old Services have the one field alone.
    let single = tree::text(spec, "clusterIP").parse().ok();
    let ports = tree::list(spec, "ports").iter().map(|port| tree::int(port, "nodePort"));
    let ports = ports.chain([tree::int(spec, "healthCheckNodePort")]).filter(|port| *port != 0);
    Holdings {
        addresses: addresses.chain(single).collect(),
        ports: ports.filter_map(|port| u16::try_from(port).ok()).collect(),
    }
}

enum AllocationError {
    Field(FieldError),
    Exhausted(String),
}

impl AllocationError {
    fn status(self, invalid: impl FnOnce(FieldError) -> Status) -> Status {
        match self {
            Self::Field(error) => invalid(error),
            Self::Exhausted(why) => Status::internal(why),
        }
    }
}

impl Pools {
    fn port_number(&self, port: u16) -> Option<usize> {
        port.checked_sub(*self.node_ports.start()).map(usize::from)
    }

    fn give_back(&self, held: &Holdings) {
        self.addresses.give_back(held.addresses.iter().copied());
        for number in held.ports.iter().filter_map(|port| self.port_number(*port)) {
            self.ports.lock().give_back(number);
        }
    }

    /// Gives an address for each of the families at `places` of the list.
    fn give_addresses(
        &self,
        service: &mut Value,
        places: std::ops::Range<usize>,
        ranges: &[IpNet],
        held: &Holdings,
        taken: &mut Holdings,
    ) -> Result<(), AllocationError> {
        let spec = &mut service["spec"];
        let families = tree::list(spec, "ipFamilies").to_vec();
        let mut addresses = tree::list(spec, "clusterIPs").to_vec();
        for place in places {
            let asked = addresses.get(place).and_then(Value::as_str).unwrap_or_default().to_owned();
            let given = if asked.is_empty() {
                let family = families[place].as_str().unwrap_or_default();
                let full = || AllocationError::Exhausted("failed to allocate a serviceIP: range is full".into());
                self.addresses.take_any(family, ranges).ok_or_else(full)?
            } else {
                // What is no address was told before.
                let Ok(address) = asked.parse::<IpAddr>() else { return Ok(()) };
                if held.addresses.contains(&address) {
                    continue;
                }
                self.take_address(address, &addresses, ranges)?;
                address
            };
            taken.addresses.insert(given);
            addresses.truncate(place);
            addresses.push(given.to_string().into());
        }
        tree::set(spec, "clusterIP", addresses.first().cloned().unwrap_or_default());
        tree::set(spec, "clusterIPs", addresses);
        Ok(())
    }

    fn take_address(&self, address: IpAddr, all: &[Value], ranges: &[IpNet]) -> Result<(), AllocationError> {
        let why = match self.addresses.take(address, ranges) {
            Ok(()) => return Ok(()),
            Err(TakeError::Taken) => "provided IP is already allocated".to_owned(),
            Err(TakeError::NoRange) => "the provided network does not match the current range".to_owned(),
            Err(TakeError::OutOfRange) => {
                let around = ranges.iter().find(|range| range.contains(&address)).map(ToString::to_string);
                let around = around.unwrap_or_default();
                format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {around}")
            }
        };
        let path = Path::new("spec").child("clusterIPs");
        let why = format!("failed to allocate IP {address}: {why}");
        Err(AllocationError::Field(FieldError::invalid(&path, all.to_vec(), &why)))
    }

    fn give_ports(&self, service: &mut Value, held: &Holdings, taken: &mut Holdings) -> Result<(), AllocationError> {
        let needs = families::needs_node_ports(service);
        let explicit: BTreeSet<i64> = holdings(service).ports.iter().map(|port| i64::from(*port)).collect();
        // A new Service has one node port for all protocols of a port, the one that is asked for first.
        let mut shared = BTreeMap::new();
        if held.ports.is_empty() {
            for port in tree::list(&service["spec"], "ports").iter().filter(|port| tree::int(port, "nodePort") != 0) {
                shared.entry(tree::int(port, "port")).or_insert(tree::int(port, "nodePort"));
            }
        }
        for (i, port) in tree::items_mut(&mut service["spec"], "ports").enumerate() {
            let asked = tree::int(port, "nodePort");
            let path = Path::new("spec").child("ports").index(i).child("nodePort");
            if asked != 0 {
                self.take_port(&path, asked, held, taken, "")?;
            } else if needs {
                let number = tree::int(port, "port");
                let given = match shared.get(&number) {
                    Some(given) => *given,
                    None => self.take_any_port(&explicit, taken)?,
                };
                if held.ports.is_empty() {
                    shared.insert(number, given);
                    self.take_port(&path, given, held, taken, "")?;
                }
                tree::set(port, "nodePort", given);
            }
        }
        Ok(())
    }

    fn give_health_port(
        &self,
        service: &mut Value,
        held: &Holdings,
        taken: &mut Holdings,
    ) -> Result<(), AllocationError> {
        let asked = tree::int(&service["spec"], "healthCheckNodePort");
        let path = Path::new("spec").child("healthCheckNodePort");
        if !families::needs_health_port(service) {
            return Ok(());
        }
        if asked != 0 {
            let words = format!("failed to allocate requested HealthCheck NodePort {asked}: ");
            return self.take_port(&path, asked, held, taken, &words);
        }
        let given = self.take_any_port(&BTreeSet::new(), taken)?;
        tree::set(&mut service["spec"], "healthCheckNodePort", given);
        Ok(())
    }

    /// A port that was asked for. Ports of different protocols may share a number within a Service.
    fn take_port(
        &self,
        path: &Path,
        asked: i64,
        held: &Holdings,
        taken: &mut Holdings,
        words: &str,
    ) -> Result<(), AllocationError> {
        let fail = |why: &str| Err(AllocationError::Field(FieldError::invalid(path, asked, &format!("{words}{why}"))));
        let port = u16::try_from(asked).ok();
        if port.is_some_and(|port| held.ports.contains(&port) || taken.ports.contains(&port)) {
            return Ok(());
        }
        let number = port.and_then(|port| self.port_number(port));
        let outcome = number.map_or(Err(TakeError::OutOfRange), |number| self.ports.lock().take(number));
        match outcome {
            Ok(()) => {
                taken.ports.extend(port);
                Ok(())
            }
            Err(TakeError::Taken) => fail("provided port is already allocated"),
            Err(TakeError::OutOfRange | TakeError::NoRange) => {
                let (first, last) = (self.node_ports.start(), self.node_ports.end());
                fail(&format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"))
            }
        }
    }

    /// Any free port that the Service does not itself ask for elsewhere.
    fn take_any_port(&self, not: &BTreeSet<i64>, taken: &mut Holdings) -> Result<i64, AllocationError> {
        let mut pool = self.ports.lock();
        let mut passed_over = Vec::new();
        let found = loop {
            let Some(number) = pool.take_any() else { break None };
            let port = self.node_ports.start() + u16::try_from(number).unwrap_or_default();
            if !not.contains(&i64::from(port)) {
                break Some(port);
            }
            passed_over.push(number);
        };
        passed_over.into_iter().for_each(|number| pool.give_back(number));
        let full = || AllocationError::Exhausted("failed to allocate a nodePort: range is full".into());
        let port = found.ok_or_else(full)?;
        taken.ports.insert(port);
        Ok(port.into())
    }
}
