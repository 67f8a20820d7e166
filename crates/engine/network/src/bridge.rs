//! The bridge of a node and what hangs on it.

use crate::address::Addresses;
use crate::record::{Attachment, HostPort, Protocol, Record, Records, check_id};
use crate::{Error, Result, rules};
use ipnet::IpNet;
use parking_lot::Mutex;
use pintle_netlink::conntrack::Conntrack;
use pintle_netlink::nft::{Family, Nftables};
use pintle_netlink::{
    Bridge, HardwareAddress, LinkChange, Neighbor, Netlink, Peer, Port, Route, Scope, TokenBucket, Veth,
    forgive_missing, namespace,
};
use std::collections::HashSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// The interface's name inside a sandbox.
const INTERFACE: &str = "eth0";
/// What the names of our interfaces on the host begin with.
const PREFIX: &str = "pin";
/// The group of our interfaces on the host, by which a reset finds them: `pint` in ASCII.
pub(crate) const GROUP: u32 = 0x7069_6e74;

/// How a node's bridge is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// The addresses of this node's sandboxes, one range of each family that they have, the primary one first; the
    /// first address of each is the bridge's own and their gateway.
    pub pod_subnets: Vec<IpNet>,
    /// All ranges that sandboxes reach with their own address (the whole cluster's pods); the rest is masqueraded.
    pub cluster_subnets: Vec<IpNet>,
    /// Ranges that exist only in address translation (services): never masqueraded here, and routed to the bridge so
    /// that the host itself has a route, even where it has no default route.
    pub translated_subnets: Vec<IpNet>,
    /// Where addresses in use are written down; made if missing, and used by nothing else.
    pub state_dir: PathBuf,
    /// The largest packet of the bridge and its interfaces in bytes.
    pub mtu: u32,
}

/// How fast a sandbox may receive and send, in bytes a second; nothing is as fast as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    pub receive: Option<u64>,
    pub send: Option<u64>,
}

/// How the network is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub bridge: String,
    pub subnets: Vec<IpNet>,
    /// How many addresses of the primary range are in use, and how many it has.
    pub addresses_used: usize,
    pub addresses_total: usize,
}

/// The bridge network of a node. Cheap to share behind an `Arc`; calls may come from several threads, but those about
/// one sandbox must come one after the other.
#[derive(Debug)]
pub struct BridgeNetwork {
    config: Config,
    /// The host's network namespace.
    host: File,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    netlink: Netlink,
    nft: Nftables,
    /// One for each family, the primary one first; never empty.
    addresses: Vec<Addresses>,
    records: Records,
    /// The bridge's index.
    link: u32,
}

impl BridgeNetwork {
    /// Makes the bridge and its rules in the caller's network namespace, or adopts those of an earlier run, and reads
    /// the addresses in use.
    pub fn open(config: Config) -> Result<Self> {
        let host = namespace::open(Path::new("/proc/thread-self/ns/net"))?;
        let mut netlink = Netlink::open()?;
        let mut nft = Nftables::open()?;
        let records = Records::open(&config.state_dir)?;
        let addresses = in_use(&config, &records)?;
        let link = raise_bridge(&mut netlink, &config, primary(&addresses)?)?;
        set_kernel_parameters(&config)?;
        place_gateways(&mut netlink, &config, link, &addresses)?;
        rules::replace(&mut nft, &config, &records)?;
        let inner = Inner { netlink, nft, addresses, records, link };
        Ok(Self { config, host, inner: Mutex::new(inner) })
    }

    /// Releases everything that belongs to sandboxes other than `live`: called once at start.
    pub fn retain(&self, live: &[String]) -> Result<()> {
        let live: HashSet<&str> = live.iter().map(String::as_str).collect();
        for id in self.ids().iter().filter(|id| !live.contains(id.as_str())) {
            self.release(id)?;
        }
        self.inner.lock().delete_strangers()
    }

    /// Gives the network namespace at `namespace` an interface, or returns what it was given before.
    ///
    /// # Errors
    /// When no address is free, when a host port is in use by another sandbox, or when the kernel refuses; then
    /// nothing is left behind.
    pub fn setup(&self, sandbox_id: &str, namespace: &Path, host_ports: &[HostPort]) -> Result<Attachment> {
        check_id(sandbox_id)?;
        if let Some(attachment) = self.inner.lock().existing(sandbox_id)? {
            return Ok(attachment);
        }
        // What is written down but not there is half done, from a run that was killed.
        self.release(sandbox_id)?;
        let made = {
            let mut inner = self.inner.lock();
            inner.check_ports(&self.config, sandbox_id, host_ports)?;
            inner.attach(&self.config, sandbox_id, namespace, host_ports)
        };
        if made.is_err()
            && let Err(error) = self.release(sandbox_id)
        {
            tracing::warn!(sandbox = sandbox_id, %error, "cannot undo a network set-up that failed");
        }
        made
    }

    /// Bounds how fast a sandbox that was set up receives and sends; both end with its interface.
    ///
    /// # Errors
    /// When it was not set up, or when the kernel has no token bucket (`sch_tbf`).
    pub fn limit(&self, sandbox_id: &str, namespace: &Path, bandwidth: Bandwidth) -> Result<()> {
        let attachment = self
            .attachment(sandbox_id)
            .ok_or_else(|| Error::Config(format!("sandbox {sandbox_id} has no network to limit")))?;
        if let Some(rate) = bandwidth.receive {
            limit_link(&mut self.inner.lock().netlink, &attachment.host_interface, rate)?;
        }
        if let Some(rate) = bandwidth.send {
            let namespace = namespace::open(namespace)?;
            limit_link(&mut Netlink::in_namespace(namespace.as_fd())?, &attachment.interface, rate)?;
        }
        Ok(())
    }

    /// Takes everything back that `setup` gave; nothing to do is success. Takes some 30 ms, in which other sandboxes
    /// need not wait: so long does the kernel wait for the last user of an interface.
    pub fn teardown(&self, sandbox_id: &str) -> Result<()> {
        check_id(sandbox_id)?;
        self.release(sandbox_id)
    }

    /// What a sandbox has, if it has been set up.
    pub fn attachment(&self, sandbox_id: &str) -> Option<Attachment> {
        self.inner.lock().records.get(sandbox_id).map(|record| record.attachment.clone())
    }

    /// How many addresses are left; fails when the bridge is not there or is down.
    pub fn status(&self) -> Result<Status> {
        let mut inner = self.inner.lock();
        let bridge = self.config.bridge.clone();
        match inner.netlink.link(&bridge)? {
            Some(link) if link.up => Ok(Status {
                bridge,
                subnets: self.config.pod_subnets.clone(),
                addresses_used: inner.addresses.first().map_or(0, Addresses::used),
                addresses_total: inner.addresses.first().map_or(0, Addresses::total),
            }),
            Some(_) => Err(Error::Config(format!("bridge {bridge} is down; `ip link set {bridge} up` raises it"))),
            None => Err(Error::Config(format!("bridge {bridge} is gone; restart the node to make it again"))),
        }
    }

    /// Removes the bridge, every interface on it, every rule and every record: for `reset`.
    pub fn remove_all(&self) -> Result<()> {
        forgive_missing(self.inner.lock().netlink.delete_group(GROUP))?;
        for id in self.ids() {
            self.release(&id)?;
        }
        let mut inner = self.inner.lock();
        inner.delete_strangers()?;
        rules::remove(&mut inner.nft)?;
        forgive_missing(inner.netlink.delete_link_named(&self.config.bridge))?;
        inner.records.remove_all()
    }

    fn ids(&self) -> Vec<String> {
        self.inner.lock().records.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Undoes a set-up, also one that stopped half-way. The record goes last, and the address with it: until then
    /// nobody else can get it.
    fn release(&self, id: &str) -> Result<()> {
        let Some(record) = self.inner.lock().unpublish(&self.config, id)? else { return Ok(()) };
        if record.host_ports.iter().any(|port| port.protocol == Protocol::Udp) {
            forget_datagrams(self.host.as_fd(), &record.attachment.addresses);
        }
        // On a socket of its own and without the lock, because the kernel takes its time.
        let deleted = Netlink::in_namespace(self.host.as_fd())?.delete_link_named(&record.attachment.host_interface);
        forgive_missing(deleted)?;
        self.inner.lock().forget(id, &record)
    }
}

impl Inner {
    /// What the sandbox was given, if its interface is there too.
    fn existing(&mut self, id: &str) -> Result<Option<Attachment>> {
        let Some(record) = self.records.get(id) else { return Ok(None) };
        let attachment = record.attachment.clone();
        Ok(self.netlink.link(&attachment.host_interface)?.map(|_| attachment))
    }

    fn check_ports(&self, config: &Config, id: &str, ports: &[HostPort]) -> Result<()> {
        let families: Vec<Family> = config.families().collect();
        if let Some(port) = ports.iter().find(|port| !families.iter().any(|family| port.is_of(*family))) {
            return Err(Error::Config(format!(
                "host port {} of {}: pods of this node have no address of that family",
                port.host_port,
                port.host_ip.map(|address| address.to_string()).unwrap_or_default()
            )));
        }
        for (holder, record) in self.records.iter().filter(|(holder, _)| *holder != id) {
            let taken = ports.iter().find(|port| record.host_ports.iter().any(|other| port.collides(other)));
            if let Some(HostPort { host_port, protocol, .. }) = taken {
                let holder = holder.clone();
                return Err(Error::HostPortInUse { port: *host_port, protocol: protocol.name(), holder });
            }
        }
        Ok(())
    }

    /// The steps of a set-up. The record comes first: whatever happens after, `release` finds what to undo.
    fn attach(&mut self, config: &Config, id: &str, namespace: &Path, ports: &[HostPort]) -> Result<Attachment> {
        let namespace = namespace::open(namespace)?;
        let gateway = primary(&self.addresses)?;
        let addresses = self.allocate()?;
        let hardware = hardware_of(addresses[0]);
        let attachment = Attachment {
            interface: INTERFACE.into(),
            addresses,
            gateway,
            mac: hardware.to_string(),
            host_interface: interface_of(id),
        };
        let record = Record { attachment: attachment.clone(), host_ports: ports.to_vec() };
        if let Err(error) = self.records.insert(id, record.clone()) {
            self.free(&attachment.addresses);
            return Err(error);
        }
        let name = &attachment.host_interface;
        let peer = Peer { name: INTERFACE, hardware: Some(hardware), namespace: Some(namespace.as_fd()) };
        self.netlink.add_port(&Veth { name, mtu: config.mtu, master: Some(self.link), group: GROUP, peer })?;
        self.configure_inside(namespace.as_fd(), &attachment)?;
        for address in &attachment.addresses {
            self.netlink.set_neighbor(&Neighbor { link: self.link, address: *address, hardware })?;
        }
        if !ports.is_empty() && rules::publish(&mut self.nft, config, &record).is_err() {
            // Somebody may have flushed the table: put it back as a whole.
            rules::replace(&mut self.nft, config, &self.records)?;
        }
        Ok(attachment)
    }

    /// An address of each family, or of none.
    fn allocate(&mut self) -> Result<Vec<IpAddr>> {
        let mut given = Vec::with_capacity(self.addresses.len());
        for range in &mut self.addresses {
            match range.allocate() {
                Ok(address) => given.push(address),
                Err(error) => {
                    self.free(&given);
                    return Err(error);
                }
            }
        }
        Ok(given)
    }

    fn free(&mut self, addresses: &[IpAddr]) {
        for range in &mut self.addresses {
            addresses.iter().for_each(|address| range.release(*address));
        }
    }

    /// Raises both ends; addresses, routes and the gateways' hardware address inside the sandbox.
    fn configure_inside(&mut self, namespace: BorrowedFd<'_>, attachment: &Attachment) -> Result<()> {
        let mut inside = Netlink::in_namespace(namespace)?;
        inside.raise_loopback()?;
        let link = inside
            .link(INTERFACE)?
            .ok_or_else(|| Error::Config(format!("{INTERFACE} vanished from the sandbox while it was set up")))?
            .index;
        inside.set_link(link, &LinkChange { up: Some(true), ..LinkChange::default() })?;
        self.netlink.raise_port(&attachment.host_interface, Port { hairpin: true, isolated: false })?;
        // To ask for a link makes the kernel see its carrier now, and not when it finds the time.
        inside.link(INTERFACE)?;
        let hardware = hardware_of(primary(&self.addresses)?);
        for (range, address) in self.addresses.iter().zip(&attachment.addresses) {
            let gateway = range.gateway();
            inside.add_address(link, IpNet::from(*address))?;
            inside.set_neighbor(&Neighbor { link, address: gateway, hardware })?;
            let route =
                |destination, gateway, scope| Route { destination, gateway, link: Some(link), scope, source: None };
            inside.set_route(&route(IpNet::from(gateway), None, Scope::Link))?;
            inside.set_route(&route(everything_like(gateway), Some(gateway), Scope::Universe))?;
        }
        Ok(())
    }

    /// The first half of a release: nothing leads to the sandbox any more.
    fn unpublish(&mut self, config: &Config, id: &str) -> Result<Option<Record>> {
        let Some(record) = self.records.get(id).cloned() else { return Ok(None) };
        if !record.host_ports.is_empty() && rules::withdraw(&mut self.nft, config, &record).is_err() {
            rules::replace_without(&mut self.nft, config, &self.records, id)?;
        }
        let addresses = &record.attachment.addresses;
        if let Some(hardware) = addresses.first().map(|address| hardware_of(*address)) {
            for address in addresses {
                let neighbor = Neighbor { link: self.link, address: *address, hardware };
                forgive_missing(self.netlink.delete_neighbor(&neighbor))?;
            }
        }
        Ok(Some(record))
    }

    /// The second half: the addresses are free.
    fn forget(&mut self, id: &str, record: &Record) -> Result<()> {
        self.records.remove(id)?;
        self.free(&record.attachment.addresses);
        Ok(())
    }

    /// Deletes interfaces on the bridge that are named like ours and that no record mentions.
    fn delete_strangers(&mut self) -> Result<()> {
        let known: HashSet<&str> =
            self.records.iter().map(|(_, record)| record.attachment.host_interface.as_str()).collect();
        let strangers: Vec<u32> = self
            .netlink
            .links()?
            .into_iter()
            .filter(|link| link.master == Some(self.link) && link.kind == "veth")
            .filter(|link| link.name.starts_with(PREFIX) && !known.contains(link.name.as_str()))
            .map(|link| link.index)
            .collect();
        for index in strangers {
            forgive_missing(self.netlink.delete_link(index))?;
        }
        Ok(())
    }
}

/// A tenth of a second may be sent at once, but never less than the largest segment; 25 ms may wait behind it, as with
/// the bandwidth plugin.
fn limit_link(netlink: &mut Netlink, name: &str, bytes_per_second: u64) -> Result<()> {
    const LARGEST_SEGMENT: u64 = 64 << 10;
    let link = netlink.link(name)?.ok_or_else(|| Error::Config(format!("{name} vanished while it was limited")))?.index;
    let bytes = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let burst = (bytes_per_second / 10).max(LARGEST_SEGMENT);
    let limit_bytes = bytes(burst.saturating_add(bytes_per_second / 40));
    Ok(netlink.set_token_bucket(&TokenBucket { link, bytes_per_second, burst_bytes: bytes(burst), limit_bytes })?)
}

impl Config {
    /// The families of the sandboxes' addresses.
    pub(crate) fn families(&self) -> impl Iterator<Item = Family> {
        self.pod_subnets.iter().map(|subnet| Family::of(subnet.addr()))
    }
}

/// The ranges, with what the records say is in use.
fn in_use(config: &Config, records: &Records) -> Result<Vec<Addresses>> {
    let mut ranges = config.pod_subnets.iter().map(|subnet| Addresses::new(*subnet)).collect::<Result<Vec<_>>>()?;
    for (id, record) in records.iter() {
        for address in &record.attachment.addresses {
            let claimed = ranges.iter_mut().any(|range| range.claim(*address));
            if !claimed {
                tracing::warn!(sandbox = id, %address, "the address is not of this node's subnet");
            }
        }
    }
    for range in &mut ranges {
        records.last().iter().for_each(|last| range.resume(*last));
    }
    Ok(ranges)
}

/// The gateway that the bridge's hardware address is made of.
fn primary(addresses: &[Addresses]) -> Result<IpAddr> {
    let first = addresses.first().ok_or_else(|| Error::Config("this node has no range of pod addresses".into()))?;
    Ok(first.gateway())
}

/// The default destination of an address's family.
fn everything_like(address: IpAddr) -> IpNet {
    let none = if address.is_ipv4() { IpAddr::from([0_u8; 4]) } else { IpAddr::from([0_u8; 16]) };
    IpNet::new_assert(none, 0)
}

/// Makes or adopts the bridge; returns its index.
fn raise_bridge(netlink: &mut Netlink, config: &Config, gateway: IpAddr) -> Result<u32> {
    let name = config.bridge.as_str();
    match netlink.link(name)? {
        Some(link) if link.kind == "bridge" => {
            let change = LinkChange { up: Some(true), mtu: Some(config.mtu), ..LinkChange::default() };
            netlink.set_link(link.index, &change)?;
        }
        Some(link) => {
            return Err(Error::Config(format!(
                "{name} is there and is not a bridge but {:?}; remove it or give the bridge another name",
                link.kind
            )));
        }
        None => netlink.add_bridge(&Bridge { name, mtu: config.mtu, hardware: hardware_of(gateway) })?,
    }
    let missing = || Error::Config(format!("bridge {name} vanished while it was set up"));
    Ok(netlink.link(name)?.ok_or_else(missing)?.index)
}

/// Gives the bridge exactly the gateways' addresses, and the routes of translated addresses.
fn place_gateways(netlink: &mut Netlink, config: &Config, link: u32, addresses: &[Addresses]) -> Result<()> {
    let mut missing: Vec<IpNet> =
        addresses.iter().map(|range| IpNet::new_assert(range.gateway(), range.subnet().prefix_len())).collect();
    for found in netlink.addresses()?.into_iter().filter(|found| found.link == link) {
        let net = found.address;
        if missing.contains(&net) {
            missing.retain(|wanted| *wanted != net);
        } else if net.prefix_len() < net.max_prefix_len() && !is_link_local(net.addr()) {
            // The gateway of an earlier subnet. Single addresses are somebody else's affair.
            netlink.delete_address(link, net)?;
        }
    }
    for address in missing {
        netlink.add_address(link, address)?;
    }
    for destination in &config.translated_subnets {
        let family = Family::of(destination.addr());
        let source = addresses.iter().map(Addresses::gateway).find(|gateway| family.has(*gateway));
        if source.is_some() {
            let destination = *destination;
            netlink.set_route(&Route { destination, gateway: None, link: Some(link), scope: Scope::Link, source })?;
        }
    }
    Ok(())
}

/// What the kernel gives every IPv6 link by itself.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}

/// Forwarding between interfaces; loopback addresses on the bridge for ports of 127.0.0.1; no redirects, because
/// sandboxes talk to each other through the host on purpose (those of IPv6 are dropped: they have no switch).
fn set_kernel_parameters(config: &Config) -> Result<()> {
    let bridge = format!("conf/{}", config.bridge);
    for family in config.families() {
        let (folder, parameters) = match family {
            Family::Ip6 => {
                ("ipv6", vec![(format!("{bridge}/disable_ipv6"), "0"), ("conf/all/forwarding".to_owned(), "1")])
            }
            Family::Ip | Family::Inet => (
                "ipv4",
                vec![
                    ("ip_forward".to_owned(), "1"),
                    (format!("{bridge}/route_localnet"), "1"),
                    (format!("{bridge}/send_redirects"), "0"),
                ],
            ),
        };
        for (name, value) in parameters {
            let path = Path::new("/proc/sys/net").join(folder).join(name);
            // Writing what is there already would fail needlessly where /proc/sys is read-only.
            if fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
                continue;
            }
            fs::write(&path, value).map_err(|source| Error::File { doing: "write", path, source })?;
        }
    }
    Ok(())
}

/// `0a:58` and the address, or its last four bytes, as many bridge plugins do: known without asking, unique where the
/// address is.
fn hardware_of(address: IpAddr) -> HardwareAddress {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => (u128::from(v6) as u32).to_be_bytes(),
    };
    HardwareAddress([0x0a, 0x58, a, b, c, d])
}

/// A name that fits 15 bytes, from the sandbox's id by the FNV-1a hash.
fn interface_of(id: &str) -> String {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{PREFIX}{:011x}", hash >> 20)
}

/// Datagrams of a client that goes on sending must not be led to an address that is about to be somebody else's.
fn forget_datagrams(host: BorrowedFd<'_>, addresses: &[IpAddr]) {
    let forgotten = Conntrack::in_namespace(host).and_then(|mut tracker| {
        tracker.delete_where(|flow| flow.original.protocol == 17 && addresses.contains(&flow.reply.source))
    });
    if let Err(error) = forgotten {
        tracing::warn!(?addresses, %error, "cannot forget tracked datagrams");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit() {
        for id in ["a", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"] {
            let name = interface_of(id);
            assert!(name.len() == 14 && name.starts_with(PREFIX), "{name}");
        }
        assert_ne!(interface_of("a"), interface_of("b"));
    }
}
