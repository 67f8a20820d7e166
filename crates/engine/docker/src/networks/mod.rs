//! Networks as Docker knows them: bridges with their address ranges, the host's own, none, and macvlan.
//!
//! [`Networks`] owns their records (`data_dir`), who is connected (`run_dir`, because namespaces do not survive a
//! reboot), the interfaces, the nf_tables tables `pintle_docker`, and the resolvers of running containers. Its calls
//! block for some milliseconds: asynchronous callers use `spawn_blocking`. It knows nothing of container records.

mod datagrams;
mod dns;
mod endpoint;
mod join;
mod links;
mod pools;
mod ports;
mod records;
mod request;
mod rules;
mod settings;
mod view;

pub use join::{Attach, Attached};
pub use ports::{PortRequest, requests as port_requests};
pub use records::{Protocol, Publication};
pub use request::{ConfigFrom, CreateRequest, Ipam, IpamRange};
pub use view::{EndpointView, NetworkView};

use crate::containers::new_id;
use crate::error::{DockerError, Result};
use ipnet::IpNet;
use join::Live;
use parking_lot::Mutex;
use pintle_clock::Clock;
use pintle_netlink::nft::Nftables;
use pintle_netlink::{Netlink, forgive_missing, namespace};
use pools::{Addresses, Pool};
use records::{Member, Network, Records};
use request::Range;
use rules::{Plan, failed};
use settings::Settings;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DEFAULT_MTU: u32 = 1500;
/// The most networks of one daemon.
const MAX_NETWORKS: usize = 4096;

/// Where networks are kept, and what the first one is.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    /// The interface of the network `bridge`.
    pub bridge: String,
    /// Interfaces that may go on forwarding if this daemon has to switch forwarding on.
    pub trusted: Vec<String>,
}

/// See the module's documentation.
pub struct Networks {
    config: Config,
    /// The host's network namespace.
    host: File,
    clock: Arc<dyn Clock>,
    networks: Records,
    members: Records,
    inner: Mutex<Inner>,
}

struct Inner {
    netlink: Netlink,
    settings: Settings,
    nft: Nftables,
    networks: BTreeMap<String, Kept>,
    members: HashMap<String, Member>,
    /// Sockets and tasks of running containers.
    live: HashMap<String, Live>,
    /// The tables are as this process wants them.
    rules_stand: bool,
}

/// A network with the addresses in use.
struct Kept {
    network: Network,
    pools: Vec<Addresses>,
    /// The index of the bridge that this process has made or adopted.
    raised: Option<u32>,
}

impl Kept {
    fn new(network: Network) -> Self {
        let pools = network.pools.iter().cloned().map(Addresses::new).collect();
        Self { network, pools, raised: None }
    }
}

/// The words and status of an unknown network.
pub(crate) fn not_found(name: &str) -> DockerError {
    DockerError::not_found(format!("network {name} not found"))
}

impl Networks {
    /// Reads the records, and writes those of the three networks that are always there. Touches no interface yet.
    ///
    /// # Errors
    /// When a folder cannot be read or written, or the kernel's netlink does not answer.
    pub fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let host = namespace::open(Path::new("/proc/thread-self/ns/net")).map_err(failed)?;
        let netlink = Netlink::in_namespace(host.as_fd()).map_err(failed)?;
        let nft = Nftables::in_namespace(host.as_fd()).map_err(failed)?;
        let networks = Records::open(config.data_dir.join("networks"))?;
        let members = Records::open(config.run_dir.join("endpoints"))?;
        let kept = networks.load::<Network>()?.into_iter().map(|n| (n.id.clone(), Kept::new(n))).collect();
        let connected: Vec<Member> = members.load()?;
        let connected: HashMap<String, Member> = connected.into_iter().map(|m| (m.container.clone(), m)).collect();
        let mut inner = Inner {
            netlink,
            settings: Settings::default(),
            nft,
            networks: kept,
            members: connected,
            live: HashMap::new(),
            rules_stand: false,
        };
        inner.claim_all();
        let opened = Self { config, host, clock, networks, members, inner: Mutex::new(inner) };
        opened.add_predefined()?;
        Ok(Arc::new(opened))
    }

    /// Takes everything back from containers other than `live`, and gives those what a daemon must serve: rules,
    /// resolvers, proxies. Bridges that were made have gone with a reboot, or were being made or removed when the daemon
    /// was killed: they are there again. Called once at start, within a tokio runtime.
    pub fn retain(self: &Arc<Self>, live: &[String]) -> Result<()> {
        let all: Vec<String> = self.inner.lock().members.keys().cloned().collect();
        for id in all.iter().filter(|id| !live.contains(id)) {
            self.release_all(id)?;
        }
        let mut inner = self.inner.lock();
        if inner.raise_made() || !inner.members.is_empty() {
            self.make_rules_stand(&mut inner)?;
        }
        drop(inner);
        for id in all.iter().filter(|id| live.contains(id)) {
            self.serve_again(id);
        }
        Ok(())
    }

    fn add_predefined(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            if inner.networks.values().any(|kept| kept.network.name == name) {
                continue;
            }
            let mut network = Network {
                id: new_id(),
                name: name.to_owned(),
                driver: driver.to_owned(),
                created: self.now(),
                ipv4: true,
                ipam_driver: "default".to_owned(),
                ..Network::default()
            };
            if name == "bridge" {
                self.config.bridge.clone_into(&mut network.bridge);
                network.mtu = DEFAULT_MTU;
                let subnet = pools::choose_v4(&inner.taken()?)?;
                network.pools = vec![pool_of(subnet)?];
                network.options = default_options(&network.bridge);
            }
            self.networks.save(&network.id, &network)?;
            inner.networks.insert(network.id.clone(), Kept::new(network));
        }
        Ok(())
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.unix_nanos()).unwrap_or(i64::MAX)
    }

    /// Makes a network; the id comes back.
    ///
    /// # Errors
    /// 400 for wrong settings, 403 for names and ranges that are reserved or overlap, 404 for drivers that are not
    /// there, 409 for a name that exists.
    pub fn create(&self, request: &CreateRequest) -> Result<String> {
        check(request)?;
        let mut inner = self.inner.lock();
        if inner.networks.values().any(|kept| kept.network.name == request.name) {
            return Err(DockerError::conflict(format!("network with name {} already exists", request.name)));
        }
        if inner.networks.len() >= MAX_NETWORKS {
            return Err(DockerError::new(403, format!("there are {MAX_NETWORKS} networks already: remove some")));
        }
        let network = self.plan(request, &mut inner)?;
        self.networks.save(&network.id, &network)?;
        let id = network.id.clone();
        inner.networks.insert(id.clone(), Kept::new(network));
        let raised = inner.raise(&id).and_then(|()| self.make_rules_stand(&mut inner));
        if raised.is_err() {
            inner.networks.remove(&id);
            // The first error is the one worth telling.
            let _ = self.networks.remove(&id);
        }
        raised.map(|()| id)
    }

    fn plan(&self, request: &CreateRequest, inner: &mut Inner) -> Result<Network> {
        let options = request.options.clone().unwrap_or_default();
        let bridge_options = request::bridge_options(&options)?;
        let (id, driver) = (new_id(), driver_of(request).to_owned());
        let ipv6 = request.enable_ipv6.unwrap_or(false);
        let ipv4 = request.enable_ipv4.unwrap_or(true);
        let ipam = request.ipam.clone().unwrap_or_default();
        let ranges: Vec<Range> = ipam.ranges(ipv6)?.into_iter().filter(|r| ipv4 || r.subnet.addr().is_ipv6()).collect();
        let pools = inner.pools_for(&id, ranges, ipv4, ipv6)?;
        let bridge = match driver.as_str() {
            "bridge" => bridge_options.name.unwrap_or_else(|| format!("br-{}", &id[..12])),
            _ => String::new(),
        };
        inner.check_interface(&driver, &bridge, options.get("parent"))?;
        Ok(Network {
            name: request.name.clone(),
            driver,
            created: self.now(),
            ipv4,
            ipv6,
            internal: request.internal,
            attachable: request.attachable,
            ipam_driver: if ipam.driver.is_empty() { "default".to_owned() } else { ipam.driver },
            ipam_options: Some(ipam.options.unwrap_or_default()),
            pools,
            options,
            labels: request.labels.clone().unwrap_or_default(),
            bridge,
            mtu: bridge_options.mtu.unwrap_or(DEFAULT_MTU),
            id,
        })
    }

    /// Removes a network that nobody uses; its record as it was comes back.
    ///
    /// # Errors
    /// 403 when it is one of the three that are always there, or in use; 404 when there is none.
    pub fn remove(&self, wanted: &str) -> Result<NetworkView> {
        let mut inner = self.inner.lock();
        let id = inner.find(wanted)?;
        let view = view::of(&inner, &id).ok_or_else(|| not_found(wanted))?;
        if inner.networks.get(&id).is_some_and(|kept| kept.network.is_predefined()) {
            return Err(DockerError::new(403, format!("{} is a pre-defined network and cannot be removed", view.name)));
        }
        if !view.endpoints.is_empty() {
            let users = view.endpoints.values().map(|e| format!("name:\"{}\" id:\"{}\"", e.name, &e.endpoint_id[..12]));
            let users: Vec<String> = users.collect();
            return Err(DockerError::new(
                403,
                format!(
                    "error while removing network: network {} has active endpoints ({})",
                    view.name,
                    users.join(", ")
                ),
            ));
        }
        // The record goes last: a daemon that is killed in between finds a network, and no bridge of nobody. Nobody joins
        // meanwhile, for that would make the bridge again: the lock is held, though the kernel takes its time.
        let bridge = inner.networks.get(&id).filter(|kept| kept.network.is_bridge()).map(|k| k.network.bridge.clone());
        if let Some(bridge) = &bridge {
            forgive_missing(inner.netlink.delete_link_named(bridge)).map_err(failed)?;
        }
        self.networks.remove(&id)?;
        inner.networks.remove(&id);
        if bridge.is_some() {
            inner.rules_stand = false;
            self.make_rules_stand(&mut inner)?;
        }
        Ok(view)
    }

    /// A network by its name, its id, or the beginning of its id.
    ///
    /// # Errors
    /// 404 when there is none, 400 when several ids begin so.
    pub fn inspect(&self, wanted: &str) -> Result<NetworkView> {
        let inner = self.inner.lock();
        let id = inner.find(wanted)?;
        view::of(&inner, &id).ok_or_else(|| not_found(wanted))
    }

    /// What events say of the network of this id.
    pub fn attributes(&self, id: &str) -> Option<BTreeMap<String, String>> {
        let inner = self.inner.lock();
        inner.networks.get(id).map(|kept| view::attributes(&kept.network.name, &kept.network.driver))
    }

    /// All networks, by name.
    pub fn list(&self) -> Vec<NetworkView> {
        let inner = self.inner.lock();
        let mut all: Vec<NetworkView> = inner.networks.keys().filter_map(|id| view::of(&inner, id)).collect();
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        all
    }

    /// Brings both tables to what the networks and their members need, and switches forwarding on.
    fn make_rules_stand(&self, inner: &mut Inner) -> Result<()> {
        if inner.rules_stand {
            return Ok(());
        }
        let flag = self.config.run_dir.join("forwarding-guard");
        let ipv6 = inner.networks.values().any(|kept| kept.network.ipv6);
        let was_off =
            links::set_kernel("ipv4/ip_forward", "1")? | (ipv6 && links::set_kernel("ipv6/conf/all/forwarding", "1")?);
        if was_off {
            std::fs::write(&flag, "").map_err(|e| DockerError::io(format_args!("write {}", flag.display()), e))?;
        }
        let guard = flag.exists();
        let Inner { nft, networks, members, .. } = inner;
        let plan = Plan {
            networks: networks.values().map(|kept| &kept.network).collect(),
            publications: members.values().flat_map(|m| &m.published).collect(),
            guard: guard.then_some(self.config.trusted.as_slice()),
        };
        rules::replace(nft, &plan)?;
        inner.rules_stand = true;
        Ok(())
    }
}

/// Removes every interface and rule that any daemon has left on this machine: for `reset`.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_leftovers() -> Result<()> {
    let mut netlink = Netlink::open().map_err(failed)?;
    forgive_missing(netlink.delete_group(links::GROUP)).map_err(failed)?;
    rules::remove(&mut Nftables::open().map_err(failed)?)
}

impl Inner {
    /// Marks the addresses of an earlier run's members.
    fn claim_all(&mut self) {
        for joined in self.members.values().flat_map(|m| &m.joined) {
            let Some(kept) = self.networks.get_mut(&joined.network) else { continue };
            for address in joined.v4.iter().chain(&joined.v6) {
                kept.pools.iter_mut().filter(|p| p.pool.subnet.contains(address)).for_each(|p| p.claim(address.addr()));
            }
        }
    }

    /// Makes or adopts the bridge of a network that has one; the rules have to follow.
    fn raise(&mut self, id: &str) -> Result<()> {
        let Some(kept) = self.networks.get_mut(id).filter(|kept| kept.network.is_bridge()) else { return Ok(()) };
        kept.raised = Some(links::raise_bridge(&mut self.netlink, &kept.network, None)?);
        self.rules_stand = false;
        Ok(())
    }

    /// The same for all that were made; those that are always there wait for their first container. True when there are
    /// any.
    fn raise_made(&mut self) -> bool {
        let made = |kept: &&Kept| kept.network.is_bridge() && !kept.network.is_predefined();
        let made: Vec<String> = self.networks.values().filter(made).map(|kept| kept.network.id.clone()).collect();
        for id in &made {
            if let Err(error) = self.raise(id) {
                tracing::warn!(network = %id, %error, "the bridge of a network cannot be had");
            }
        }
        !made.is_empty()
    }

    fn find(&self, wanted: &str) -> Result<String> {
        if self.networks.contains_key(wanted) {
            return Ok(wanted.to_owned());
        }
        if let Some((id, _)) = self.networks.iter().find(|(_, kept)| kept.network.name == wanted) {
            return Ok(id.clone());
        }
        let mut beginning = self.networks.keys().filter(|id| !wanted.is_empty() && id.starts_with(wanted));
        match (beginning.next(), beginning.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(_), Some(_)) => {
                Err(DockerError::invalid(format!("network {wanted} is ambiguous (2 matches found based on ID prefix)")))
            }
            (None, _) => Err(not_found(wanted)),
        }
    }

    /// What a new subnet must not touch: those of networks, and what the host has routes to.
    fn taken(&mut self) -> Result<Vec<IpNet>> {
        let routes = self.netlink.routes().map_err(failed)?;
        let routes = routes.into_iter().map(|r| r.destination).filter(|d| d.prefix_len() > 0);
        let addresses = self.netlink.addresses().map_err(failed)?.into_iter().map(|a| a.address);
        Ok(routes.chain(addresses).chain(self.subnets()).collect())
    }

    fn subnets(&self) -> Vec<IpNet> {
        self.networks.values().flat_map(|kept| &kept.network.pools).map(|pool| pool.subnet).collect()
    }

    fn pools_for(&mut self, id: &str, ranges: Vec<Range>, ipv4: bool, ipv6: bool) -> Result<Vec<Pool>> {
        let mut taken = self.subnets();
        let mut pools = Vec::new();
        for range in ranges {
            if taken.iter().any(|other| pools::overlap(other, &range.subnet)) {
                let message = "invalid pool request: Pool overlaps with other one on this address space";
                return Err(DockerError::new(403, message));
            }
            taken.push(range.subnet);
            pools.push(Pool::new(range, true)?);
        }
        if ipv4 && !pools.iter().any(Pool::is_v4) {
            pools.insert(0, pool_of(pools::choose_v4(&self.taken()?)?)?);
        }
        if ipv6 && pools.iter().all(Pool::is_v4) {
            pools.push(pool_of(pools::choose_v6(id))?);
        }
        Ok(pools)
    }

    /// The bridge must be ours alone; a macvlan needs an interface below.
    fn check_interface(&mut self, driver: &str, bridge: &str, parent: Option<&String>) -> Result<()> {
        if let Some(other) = self.networks.values().find(|kept| !bridge.is_empty() && kept.network.bridge == bridge) {
            return Err(DockerError::new(
                403,
                format!("networks have same bridge name: {bridge} is that of network {}", other.network.name),
            ));
        }
        if driver == "bridge" {
            return Ok(());
        }
        let Some(parent) = parent.filter(|name| !name.is_empty()) else {
            return Err(DockerError::unsupported(&format!(
                "a {driver} network without the option parent (the kernel has no dummy interfaces)"
            )));
        };
        match self.netlink.link(parent) {
            Ok(Some(_)) => Ok(()),
            _ => Err(DockerError::invalid(format!(
                "invalid subinterface vlan name {parent}, example formatting is eth0.10"
            ))),
        }
    }
}

fn pool_of(subnet: IpNet) -> Result<Pool> {
    Pool::new(Range { subnet, part: None, gateway: None, auxiliary: BTreeMap::new() }, false)
}

/// What `docker network inspect bridge` shows.
fn default_options(bridge: &str) -> BTreeMap<String, String> {
    [
        ("com.docker.network.bridge.default_bridge", "true"),
        ("com.docker.network.bridge.enable_icc", "true"),
        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
        ("com.docker.network.bridge.name", bridge),
        ("com.docker.network.driver.mtu", "1500"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn driver_of(request: &CreateRequest) -> &str {
    if request.driver.is_empty() || request.driver == "default" { "bridge" } else { &request.driver }
}

/// What can be said of a request without knowing the other networks.
fn check(request: &CreateRequest) -> Result<()> {
    const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                            connect this node to swarm and try again.";
    let name = request.name.as_str();
    if name.trim().is_empty() {
        return Err(DockerError::invalid("invalid name: name is empty"));
    }
    if name.len() > 255 || name.contains(['/', '\0', '\n']) {
        return Err(DockerError::invalid(format!("invalid network name: {name:?}")));
    }
    if matches!(name, "bridge" | "host" | "none" | "default") {
        return Err(DockerError::new(403, format!("operation is not permitted on predefined {name} network")));
    }
    let driver = driver_of(request);
    if request.ingress || request.scope == "swarm" || driver == "overlay" {
        return Err(DockerError::new(503, NO_SWARM));
    }
    if request.config_only || request.config_from.as_ref().is_some_and(|from| !from.network.is_empty()) {
        return Err(DockerError::unsupported("a network that only configures others"));
    }
    match driver {
        "host" | "null" => Err(DockerError::new(403, format!("only one instance of \"{driver}\" network is allowed"))),
        "bridge" | "macvlan" => check_families(request),
        "ipvlan" => Err(DockerError::unsupported("the network driver ipvlan (the kernel lacks it)")),
        other => Err(DockerError::not_found(format!("plugin \"{other}\" not found"))),
    }
}

fn check_families(request: &CreateRequest) -> Result<()> {
    if request.enable_ipv4 == Some(false) && request.enable_ipv6 != Some(true) {
        return Err(DockerError::invalid("IPv4 or IPv6 must be enabled"));
    }
    let ipam = request.ipam.as_ref().map(|ipam| ipam.driver.as_str()).unwrap_or_default();
    if !matches!(ipam, "" | "default") {
        return Err(DockerError::not_found(format!("could not resolve ipam driver: plugin \"{ipam}\" not found")));
    }
    Ok(())
}
