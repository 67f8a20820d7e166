//! The ways to the sandboxes of other nodes: one route per node, through VXLAN or straight to the node.
//!
//! A node is known by the ranges of its sandboxes (one of each family) and its own addresses, and everything else
//! follows from these: the VXLAN device of a node has an address of each range that no sandbox gets, and a hardware
//! address made of the first range. So a node is told to the kernel in three entries (a neighbour, a forwarding entry,
//! a route; a neighbour and a route more for the second family, whose packets travel in the same datagrams), nothing is
//! learned or flooded, and a packet never leaves the kernel. What an earlier run left is adopted; [`Peers::retain`] takes away the rest.
//!
//! Invariant: after `retain`, the routes into the cluster's range are those of the given nodes and this node's own.

use crate::bridge::{GROUP, forgive_missing};
use crate::{Error, Result};
use ipnet::IpNet;
use parking_lot::Mutex;
use pintle_netlink::{Forwarding, HardwareAddress, LinkChange, Neighbor, Netlink, Route, Scope, Vxlan};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// What VXLAN puts around a packet: Ethernet, IPv4 or IPv6, UDP and its own header.
const VXLAN_OVERHEAD_V4: u32 = 50;
const VXLAN_OVERHEAD_V6: u32 = 70;
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
    pub cluster: Vec<IpNet>,
    /// Those of this node's, the primary range first; not empty.
    pub own: Vec<IpNet>,
    /// This node's addresses: the first one is what VXLAN sends from.
    pub node: Vec<IpAddr>,
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
    known: HashMap<IpNet, Way>,
}

/// The way to a range of sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    node: IpAddr,
    /// Of the node's VXLAN device.
    hardware: HardwareAddress,
}

/// The largest packet of sandboxes, in bytes, on a node of this address: what fits the link that has it.
pub fn sandbox_mtu(backend: Backend, node: IpAddr) -> Result<u32> {
    let mut netlink = Netlink::open()?;
    // A loopback's is larger than anything on a wire.
    let index = if node.is_loopback() { None } else { underlay(&mut netlink, node)? };
    let mtu = netlink.links()?.into_iter().find(|link| Some(link.index) == index).map_or(ETHERNET_MTU, |link| link.mtu);
    let overhead = if node.is_ipv4() { VXLAN_OVERHEAD_V4 } else { VXLAN_OVERHEAD_V6 };
    let mtu = mtu.clamp(SMALLEST_MTU + overhead, LARGEST_MTU);
    Ok(match backend {
        Backend::Vxlan => mtu - overhead,
        Backend::HostGateway => mtu,
    })
}

/// The index of the link that has an address.
fn underlay(netlink: &mut Netlink, node: IpAddr) -> Result<Option<u32>> {
    Ok(netlink.addresses()?.into_iter().find(|found| found.address.addr() == node).map(|found| found.link))
}

/// `0a:59` and what tells the node's range from others: its first address, or of IPv6 the second four bytes of it.
fn hardware_of(subnet: IpNet) -> HardwareAddress {
    let [a, b, c, d] = match subnet.network() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => ((u128::from(v6) >> 64) as u32).to_be_bytes(),
    };
    HardwareAddress([0x0a, 0x59, a, b, c, d])
}

/// The address of a node's VXLAN device, of this range: the first one; of IPv6 the last one, because there the first
/// one means all routers of the range.
fn device_address(subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(net) => net.network().into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

impl Peers {
    /// Makes or adopts the VXLAN device, or takes away one that is not wanted any more.
    pub fn open(config: PeersConfig) -> Result<Self> {
        let mut netlink = Netlink::open()?;
        let node = *config.node.first().ok_or_else(|| Error::Config("this node has no address".into()))?;
        let under = underlay(&mut netlink, node)?;
        let link = match config.backend {
            Backend::Vxlan => raise_device(&mut netlink, &config, node, under.unwrap_or(0))?,
            Backend::HostGateway => {
                forgive_missing(netlink.delete_link_named(&config.device))?;
                under.ok_or_else(|| Error::Config(format!("no link of this node has the address {node}")))?
            }
        };
        Ok(Self { config, inner: Mutex::new(Inner { netlink, link, known: HashMap::new() }) })
    }

    /// Leads packets for the ranges of a node's sandboxes, the primary one first, to the node. The same again changes
    /// nothing.
    ///
    /// # Errors
    /// When the node has no address that a range can be reached by, and when the kernel refuses: with
    /// [`Backend::HostGateway`], when the node is not on a link of this one.
    pub fn set(&self, subnets: &[IpNet], node: &[IpAddr]) -> Result<()> {
        let Some(hardware) = subnets.first().map(|subnet| hardware_of(*subnet)) else { return Ok(()) };
        let mut inner = self.inner.lock();
        for subnet in subnets.iter().filter(|subnet| !self.config.own.contains(subnet)) {
            let way = Way { node: self.reached_by(*subnet, node)?, hardware };
            if inner.known.get(subnet) == Some(&way) {
                continue;
            }
            let (link, destination) = (Some(inner.link), *subnet);
            let (gateway, scope) = match self.config.backend {
                Backend::Vxlan => {
                    inner.introduce(*subnet, way)?;
                    (Some(device_address(*subnet)), Scope::OnLink)
                }
                Backend::HostGateway => (Some(way.node), Scope::Universe),
            };
            inner.netlink.set_route(&Route { destination, gateway, link, scope, source: None })?;
            inner.known.insert(*subnet, way);
        }
        Ok(())
    }

    /// Which of a node's addresses packets of a range go to: datagrams have the family of this node's own address,
    /// gateways that of the range.
    fn reached_by(&self, subnet: IpNet, node: &[IpAddr]) -> Result<IpAddr> {
        let is_v4 = match self.config.backend {
            Backend::Vxlan => self.config.node.first().is_none_or(IpAddr::is_ipv4),
            Backend::HostGateway => subnet.addr().is_ipv4(),
        };
        node.iter().copied().find(|address| address.is_ipv4() == is_v4).ok_or_else(|| {
            let family = if is_v4 { "IPv4" } else { "IPv6" };
            Error::Config(format!(
                "the node of {subnet} has no {family} address to reach it by; name one with --node-ip"
            ))
        })
    }

    /// Takes the way to a range of sandboxes away; nothing there is success.
    pub fn remove(&self, subnet: IpNet) -> Result<()> {
        let mut inner = self.inner.lock();
        if self.config.own.contains(&subnet) {
            return Ok(());
        }
        inner.known.remove(&subnet);
        inner.forget(self.config.backend, subnet)
    }

    /// Takes away every way into the cluster's ranges but those that were `set`: once, when all nodes are known.
    pub fn retain(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let routes = inner.netlink.routes()?;
        let routed = routes.iter().filter_map(|route| leads_into(route, &self.config.cluster));
        for subnet in routed.filter(|net| !self.config.own.contains(net)) {
            if !inner.known.contains_key(&subnet) {
                inner.forget(self.config.backend, subnet)?;
            }
        }
        let wanted: HashSet<HardwareAddress> = inner.known.values().map(|way| way.hardware).collect();
        let link = inner.link;
        let stale = |entry: &Forwarding| entry.link == link && !wanted.contains(&entry.hardware);
        for entry in inner.netlink.forwardings()?.into_iter().filter(stale) {
            forgive_missing(inner.netlink.delete_forwarding(&entry))?;
        }
        Ok(())
    }

    /// Removes the device and every route, for `reset`; needs nothing to have been opened.
    pub fn remove_all(device: &str, cluster: &[IpNet]) -> Result<()> {
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

/// The range that a route with a gateway leads to, if it is part of one of the cluster's.
fn leads_into(route: &Route, cluster: &[IpNet]) -> Option<IpNet> {
    let net = route.destination;
    let within = cluster.iter().any(|range| range.contains(&net) && net != *range);
    (route.gateway.is_some() && within).then_some(net)
}

impl Inner {
    /// Where a node's VXLAN device is, so that nobody has to ask.
    fn introduce(&mut self, subnet: IpNet, way: Way) -> Result<()> {
        let (link, Way { node, hardware }) = (self.link, way);
        self.netlink.set_forwarding(&Forwarding { link, hardware, node })?;
        Ok(self.netlink.set_neighbor(&Neighbor { link, address: device_address(subnet), hardware })?)
    }

    /// The route goes first: nothing is sent to a node that is half forgotten. The forwarding entry goes with the
    /// node's primary range.
    fn forget(&mut self, backend: Backend, subnet: IpNet) -> Result<()> {
        let route = Route { destination: subnet, gateway: None, link: None, scope: Scope::Universe, source: None };
        forgive_missing(self.netlink.delete_route(&route))?;
        if backend == Backend::Vxlan {
            let (link, hardware) = (self.link, hardware_of(subnet));
            let address = device_address(subnet);
            forgive_missing(self.netlink.delete_neighbor(&Neighbor { link, address, hardware }))?;
            let entries = self.netlink.forwardings()?;
            for entry in entries.into_iter().filter(|entry| entry.link == link && entry.hardware == hardware) {
                forgive_missing(self.netlink.delete_forwarding(&entry))?;
            }
        }
        Ok(())
    }
}

/// Makes or adopts the device, with an address of each of this node's ranges; returns its index.
fn raise_device(netlink: &mut Netlink, config: &PeersConfig, node: IpAddr, underlay: u32) -> Result<u32> {
    let first = *config.own.first().ok_or_else(|| Error::Config("this node has no range of pod addresses".into()))?;
    let (name, hardware) = (config.device.as_str(), hardware_of(first));
    let mtu = sandbox_mtu(Backend::Vxlan, node)?;
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
                local: node,
                underlay,
                group: GROUP,
            })?;
        }
    }
    let missing = || Error::Config(format!("the device {name} vanished while it was set up"));
    let link = netlink.link(name)?.ok_or_else(missing)?.index;
    // What the host itself sends to sandboxes of other nodes comes from here, and so do masqueraded packets.
    let present = netlink.addresses()?;
    for wanted in config.own.iter().map(|subnet| IpNet::from(device_address(*subnet))) {
        if !present.iter().any(|found| found.link == link && found.address == wanted) {
            netlink.add_address(link, wanted)?;
        }
    }
    Ok(link)
}
