//! The ways to the sandboxes of other nodes: one route per node, through VXLAN or straight to the node.
//!
//! A node is known by the range of its sandboxes and its own address, and everything else follows from these: the
//! VXLAN device of a node has the first address of its range, and a hardware address made of that. So a node is told
//! to the kernel in three entries (a neighbour, a forwarding entry, a route), nothing is learned or flooded, and a
//! packet never leaves the kernel. What an earlier run left is adopted; [`Peers::retain`] takes away the rest.
//!
//! Invariant: after `retain`, the routes into the cluster's range are those of the given nodes and this node's own.

use crate::bridge::{GROUP, forgive_missing};
use crate::{Error, Result};
use ipnet::{IpNet, Ipv4Net};
use parking_lot::Mutex;
use pintle_netlink::{Forwarding, HardwareAddress, LinkChange, Neighbor, Netlink, Route, Scope, Vxlan};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

/// What VXLAN puts around a packet: Ethernet, IPv4, UDP and its own header.
const VXLAN_OVERHEAD: u32 = 50;
/// As flannel has them, so that firewalls that were opened for one are open for the other.
const VXLAN_ID: u32 = 1;
const VXLAN_PORT: u16 = 8472;
/// Where no link tells its own.
const ETHERNET_MTU: u32 = 1500;
/// What every host must be able to receive (RFC 791), and what fits all bridges.
const SMALLEST_MTU: u32 = 576;
const LARGEST_MTU: u32 = 65_000;

/// How packets for sandboxes of other nodes get there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// In UDP datagrams to the node; works over any network that passes these.
    #[default]
    Vxlan,
    /// As they are, with the node as the gateway; nodes must be on one link.
    HostGateway,
}

/// What a node's network to others is made from.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    pub backend: Backend,
    /// The VXLAN device's name, at most 15 bytes.
    pub device: String,
    /// The addresses of the sandboxes of all nodes.
    pub cluster: Ipv4Net,
    /// Those of this node's.
    pub own: Ipv4Net,
    /// This node's address.
    pub node: Ipv4Addr,
}

/// The other nodes, as the kernel knows them. Calls block for less than a millisecond.
#[derive(Debug)]
pub struct Peers {
    config: PeersConfig,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    netlink: Netlink,
    /// The link that packets to other nodes' sandboxes leave by.
    link: u32,
    known: HashMap<Ipv4Net, Ipv4Addr>,
}

/// The largest packet of sandboxes, in bytes, on a node of this address: what fits the link that has it.
pub fn sandbox_mtu(backend: Backend, node: IpAddr) -> Result<u32> {
    let mut netlink = Netlink::open()?;
    // A loopback's is larger than anything on a wire.
    let index = if node.is_loopback() { None } else { underlay(&mut netlink, node)? };
    let mtu = netlink.links()?.into_iter().find(|link| Some(link.index) == index).map_or(ETHERNET_MTU, |link| link.mtu);
    let mtu = mtu.clamp(SMALLEST_MTU + VXLAN_OVERHEAD, LARGEST_MTU);
    Ok(match backend {
        Backend::Vxlan => mtu - VXLAN_OVERHEAD,
        Backend::HostGateway => mtu,
    })
}

/// The index of the link that has an address.
fn underlay(netlink: &mut Netlink, node: IpAddr) -> Result<Option<u32>> {
    Ok(netlink.addresses()?.into_iter().find(|found| found.address.addr() == node).map(|found| found.link))
}

/// `0a:59` and the first address of the node's range.
fn hardware_of(subnet: Ipv4Net) -> HardwareAddress {
    let [a, b, c, d] = subnet.network().octets();
    HardwareAddress([0x0a, 0x59, a, b, c, d])
}

impl Peers {
    /// Makes or adopts the VXLAN device, or takes away one that is not wanted any more.
    pub fn open(config: PeersConfig) -> Result<Self> {
        let mut netlink = Netlink::open()?;
        let under = underlay(&mut netlink, config.node.into())?;
        let link = match config.backend {
            Backend::Vxlan => raise_device(&mut netlink, &config, under.unwrap_or(0))?,
            Backend::HostGateway => {
                forgive_missing(netlink.delete_link_named(&config.device))?;
                let node = config.node;
                under.ok_or_else(|| Error::Config(format!("no link of this node has the address {node}")))?
            }
        };
        Ok(Self { config, inner: Mutex::new(Inner { netlink, link, known: HashMap::new() }) })
    }

    /// Leads packets for a range of sandboxes to a node. The same again changes nothing.
    ///
    /// # Errors
    /// When the kernel refuses: with [`Backend::HostGateway`], when the node is not on a link of this one.
    pub fn set(&self, subnet: Ipv4Net, node: Ipv4Addr) -> Result<()> {
        let mut inner = self.inner.lock();
        if inner.known.get(&subnet) == Some(&node) || subnet == self.config.own {
            return Ok(());
        }
        let (link, destination) = (Some(inner.link), IpNet::V4(subnet));
        let route = match self.config.backend {
            Backend::Vxlan => {
                inner.introduce(subnet, node)?;
                let gateway = Some(subnet.network().into());
                Route { destination, gateway, link, scope: Scope::OnLink, source: None }
            }
            Backend::HostGateway => {
                Route { destination, gateway: Some(node.into()), link, scope: Scope::Universe, source: None }
            }
        };
        inner.netlink.set_route(&route)?;
        inner.known.insert(subnet, node);
        Ok(())
    }

    /// Takes the way to a range of sandboxes away; nothing there is success.
    pub fn remove(&self, subnet: Ipv4Net) -> Result<()> {
        let mut inner = self.inner.lock();
        if subnet == self.config.own {
            return Ok(());
        }
        inner.known.remove(&subnet);
        inner.forget(self.config.backend, subnet)
    }

    /// Takes away every way into the cluster's range but those that were `set`: once, when all nodes are known.
    pub fn retain(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let (cluster, own) = (self.config.cluster, self.config.own);
        for subnet in inner.routed(cluster, own)? {
            if !inner.known.contains_key(&subnet) {
                inner.forget(self.config.backend, subnet)?;
            }
        }
        let wanted: HashSet<HardwareAddress> = inner.known.keys().map(|subnet| hardware_of(*subnet)).collect();
        let link = inner.link;
        let stale = |entry: &Forwarding| entry.link == link && !wanted.contains(&entry.hardware);
        for entry in inner.netlink.forwardings()?.into_iter().filter(stale) {
            forgive_missing(inner.netlink.delete_forwarding(&entry))?;
        }
        Ok(())
    }

    /// Removes the device and every route, for `reset`; needs nothing to have been opened.
    pub fn remove_all(device: &str, cluster: Ipv4Net) -> Result<()> {
        let mut netlink = Netlink::open()?;
        forgive_missing(netlink.delete_link_named(device))?;
        for route in netlink.routes()? {
            if leads_into(&route, cluster).is_some() {
                forgive_missing(netlink.delete_route(&route))?;
            }
        }
        Ok(())
    }
}

/// The range that a route with a gateway leads to, if it is part of the cluster's.
fn leads_into(route: &Route, cluster: Ipv4Net) -> Option<Ipv4Net> {
    match route.destination {
        IpNet::V4(net) if route.gateway.is_some() && cluster.contains(&net) && net != cluster => Some(net),
        _ => None,
    }
}

impl Inner {
    /// Where a node's VXLAN device is, so that nobody has to ask.
    fn introduce(&mut self, subnet: Ipv4Net, node: Ipv4Addr) -> Result<()> {
        let (link, hardware) = (self.link, hardware_of(subnet));
        self.netlink.set_forwarding(&Forwarding { link, hardware, node })?;
        let address = subnet.network().into();
        Ok(self.netlink.set_neighbor(&Neighbor { link, address, hardware })?)
    }

    /// The route goes first: nothing is sent to a node that is half forgotten.
    fn forget(&mut self, backend: Backend, subnet: Ipv4Net) -> Result<()> {
        let route =
            Route { destination: subnet.into(), gateway: None, link: None, scope: Scope::Universe, source: None };
        forgive_missing(self.netlink.delete_route(&route))?;
        if backend == Backend::Vxlan {
            let (link, hardware) = (self.link, hardware_of(subnet));
            let address = subnet.network().into();
            forgive_missing(self.netlink.delete_neighbor(&Neighbor { link, address, hardware }))?;
            let entries = self.netlink.forwardings()?;
            for entry in entries.into_iter().filter(|entry| entry.link == link && entry.hardware == hardware) {
                forgive_missing(self.netlink.delete_forwarding(&entry))?;
            }
        }
        Ok(())
    }

    fn routed(&mut self, cluster: Ipv4Net, own: Ipv4Net) -> Result<Vec<Ipv4Net>> {
        let routes = self.netlink.routes()?;
        Ok(routes.iter().filter_map(|route| leads_into(route, cluster)).filter(|net| *net != own).collect())
    }
}

/// Makes or adopts the device, with the first address of this node's range; returns its index.
fn raise_device(netlink: &mut Netlink, config: &PeersConfig, underlay: u32) -> Result<u32> {
    let (name, hardware) = (config.device.as_str(), hardware_of(config.own));
    let mtu = sandbox_mtu(Backend::Vxlan, config.node.into())?;
    match netlink.link(name)? {
        Some(link) if link.kind == "vxlan" && link.hardware == Some(hardware) && link.mtu == mtu => {
            netlink.set_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
        }
        found => {
            if found.is_some() {
                // Of another range, or not ours at all under a name that is.
                netlink.delete_link_named(name)?;
            }
            netlink.add_vxlan(&Vxlan {
                name,
                mtu,
                hardware,
                id: VXLAN_ID,
                port: VXLAN_PORT,
                local: config.node,
                underlay,
                group: GROUP,
            })?;
        }
    }
    let missing = || Error::Config(format!("the device {name} vanished while it was set up"));
    let link = netlink.link(name)?.ok_or_else(missing)?.index;
    // What the host itself sends to sandboxes of other nodes comes from here, and so do masqueraded packets.
    let wanted = IpNet::V4(Ipv4Net::new_assert(config.own.network(), 32));
    if !netlink.addresses()?.iter().any(|found| found.link == link && found.address == wanted) {
        netlink.add_address(link, wanted)?;
    }
    Ok(link)
}
