//! The ways to the sandboxes of other nodes: one route per node, through VXLAN, through WireGuard or straight to the node.
//!
//! A node is known by the ranges of its sandboxes (one of each family) and its own addresses, and everything else
//! follows from these: the device of a node has an address of each range that no sandbox gets, and of VXLAN a hardware
//! address made of the first range. So a node is told to the kernel in three entries (a neighbour, a forwarding entry,
//! a route; a neighbour and a route more for the second family, whose packets travel in the same datagrams), nothing is
//! learned or flooded, and a packet never leaves the kernel. WireGuard needs one thing more of a node, its public key;
//! there it is one peer and a route per range. What an earlier run left is adopted; [`Peers::retain`] takes away the
//! rest.
//!
//! Invariant: after `retain`, the routes into the cluster's range are those of the given nodes and this node's own.

mod tunnel;
mod vxlan;

pub use tunnel::{TunnelConfig, TunnelEnd};

use crate::{Error, Result};
use ipnet::IpNet;
use parking_lot::Mutex;
use pintle_netlink::{HardwareAddress, Netlink, Route, Scope, forgive_missing};
use std::collections::HashMap;
use std::net::IpAddr;
use tunnel::Tunnels;

/// What is around a packet in VXLAN: Ethernet, IPv4 or IPv6, UDP and its own header.
const VXLAN_OVERHEAD_V4: u32 = 50;
const VXLAN_OVERHEAD_V6: u32 = 70;
/// And in WireGuard: IPv4 or IPv6, UDP, its own header and the proof of the sender.
const WIREGUARD_OVERHEAD_V4: u32 = 60;
const WIREGUARD_OVERHEAD_V6: u32 = 80;
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
    /// Encrypted, in UDP datagrams to the node. [`TunnelEnd::open`] makes the link before anything is opened here.
    Wireguard,
}

/// What a node's network to others is made from.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    pub backend: Backend,
    /// What the names of devices begin with, at most 12 bytes.
    pub device_prefix: String,
    /// The addresses of the sandboxes of all nodes.
    pub cluster: Vec<IpNet>,
    /// Those of this node's, the primary range first; not empty.
    pub own: Vec<IpNet>,
    /// This node's addresses: the first one is what datagrams are sent from.
    pub node: Vec<IpAddr>,
}

/// Another node.
#[derive(Clone, Copy, Debug)]
pub struct PeerNode<'a> {
    /// The ranges of its sandboxes, the primary one first.
    pub subnets: &'a [IpNet],
    pub addresses: &'a [IpAddr],
    /// What [`TunnelEnd::open`] gave there; needed with [`Backend::Wireguard`] only.
    pub tunnel: Option<TunnelEnd>,
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
    /// With [`Backend::Wireguard`].
    tunnels: Option<Tunnels>,
    known: HashMap<IpNet, Way>,
}

/// The way to a range of sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The node, and the hardware address of its VXLAN device.
    Vxlan(IpAddr, HardwareAddress),
    Gateway(IpAddr),
    Tunnel(TunnelEnd),
}

/// The largest packet of sandboxes, in bytes, on a node of this address: what fits the link that has it.
pub fn sandbox_mtu(backend: Backend, node: IpAddr) -> Result<u32> {
    let mut netlink = Netlink::open()?;
    // A loopback's is larger than anything on a wire.
    let index = if node.is_loopback() { None } else { underlay(&mut netlink, node)? };
    let mtu = netlink.links()?.into_iter().find(|link| Some(link.index) == index).map_or(ETHERNET_MTU, |link| link.mtu);
    let overhead = match (backend, node.is_ipv4()) {
        (Backend::Vxlan, true) => VXLAN_OVERHEAD_V4,
        (Backend::Vxlan, false) => VXLAN_OVERHEAD_V6,
        (Backend::HostGateway, _) => 0,
        (Backend::Wireguard, true) => WIREGUARD_OVERHEAD_V4,
        (Backend::Wireguard, false) => WIREGUARD_OVERHEAD_V6,
    };
    Ok(mtu.clamp(SMALLEST_MTU + overhead, LARGEST_MTU) - overhead)
}

/// The index of the link that has an address.
fn underlay(netlink: &mut Netlink, node: IpAddr) -> Result<Option<u32>> {
    Ok(netlink.addresses()?.into_iter().find(|found| found.address.addr() == node).map(|found| found.link))
}

/// The address of a node's device, of this range: the first one; of IPv6 the last one, because there the first one
/// means all routers of the range.
fn device_address(subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(net) => net.network().into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

/// The devices of backends but this one, which another run may have left.
fn other_devices(backend: Option<Backend>, prefix: &str) -> Vec<String> {
    let all = [(Backend::Vxlan, vxlan::device_name(prefix)), (Backend::Wireguard, tunnel::device_name(prefix))];
    all.into_iter().filter(|(of, _)| Some(*of) != backend).map(|(_, name)| name).collect()
}

impl Peers {
    /// Makes or adopts the VXLAN device, or takes the WireGuard link, and takes away devices that are not wanted any
    /// more.
    pub fn open(config: PeersConfig) -> Result<Self> {
        let mut netlink = Netlink::open()?;
        let node = *config.node.first().ok_or_else(|| Error::Config("this node has no address".into()))?;
        let under = underlay(&mut netlink, node)?;
        for device in other_devices(Some(config.backend), &config.device_prefix) {
            forgive_missing(netlink.delete_link_named(&device))?;
        }
        let (link, tunnels) = match config.backend {
            Backend::Vxlan => {
                vxlan::raise_device(&mut netlink, &config, node, under.unwrap_or(0))?;
                (address_device(&mut netlink, &vxlan::device_name(&config.device_prefix), &config)?, None)
            }
            Backend::Wireguard => {
                let device = tunnel::device_name(&config.device_prefix);
                (address_device(&mut netlink, &device, &config)?, Some(Tunnels::open(device)?))
            }
            Backend::HostGateway => {
                (under.ok_or_else(|| Error::Config(format!("no link of this node has the address {node}")))?, None)
            }
        };
        Ok(Self { config, inner: Mutex::new(Inner { netlink, link, tunnels, known: HashMap::new() }) })
    }

    /// Leads packets for the ranges of a node's sandboxes to the node. The same again changes nothing.
    ///
    /// # Errors
    /// When the node has no address that a range can be reached by, and when the kernel refuses: with
    /// [`Backend::HostGateway`], when the node is not on a link of this one.
    pub fn set(&self, node: &PeerNode<'_>) -> Result<()> {
        let Some(primary) = node.subnets.first() else { return Ok(()) };
        let others = node.subnets.iter().filter(|subnet| !self.config.own.contains(subnet));
        let ways = others.map(|subnet| Ok((*subnet, self.way(*subnet, *primary, node)?)));
        let ways: Vec<(IpNet, Way)> = ways.collect::<Result<_>>()?;
        let mut inner = self.inner.lock();
        if ways.iter().all(|(subnet, way)| inner.known.get(subnet) == Some(way)) {
            return Ok(());
        }
        let replaced: Vec<Way> = ways.iter().filter_map(|(subnet, _)| inner.known.get(subnet).copied()).collect();
        if let (Some(tunnels), Some((_, Way::Tunnel(end)))) = (&mut inner.tunnels, ways.first()) {
            tunnels.set(*end, ways.iter().map(|(subnet, _)| *subnet).collect())?;
        }
        for (subnet, way) in ways {
            inner.lead(subnet, way)?;
        }
        // Of a node that has a new key: the kernel has given its addresses to the new one.
        replaced.into_iter().try_for_each(|way| inner.settle(way))
    }

    fn way(&self, subnet: IpNet, primary: IpNet, node: &PeerNode<'_>) -> Result<Way> {
        match self.config.backend {
            Backend::Vxlan => {
                // Datagrams have the family of this node's own address.
                let is_v4 = self.config.node.first().is_none_or(IpAddr::is_ipv4);
                Ok(Way::Vxlan(reached_by(subnet, node, is_v4)?, vxlan::hardware_of(primary)))
            }
            // Gateways have that of the range.
            Backend::HostGateway => Ok(Way::Gateway(reached_by(subnet, node, subnet.addr().is_ipv4())?)),
            Backend::Wireguard => node.tunnel.map(Way::Tunnel).ok_or_else(|| {
                Error::Config(format!("the node of {subnet} has not told its WireGuard key: is its network another?"))
            }),
        }
    }

    /// Takes the way to a range of sandboxes away; nothing there is success.
    pub fn remove(&self, subnet: IpNet) -> Result<()> {
        let mut inner = self.inner.lock();
        if self.config.own.contains(&subnet) {
            return Ok(());
        }
        let way = inner.known.remove(&subnet);
        let backend = self.config.backend;
        let scope = if backend == Backend::Wireguard { Scope::Link } else { Scope::Universe };
        inner.forget(backend, &Route { destination: subnet, gateway: None, link: None, scope, source: None })?;
        way.map_or(Ok(()), |way| inner.settle(way))
    }

    /// Takes away every way into the cluster's ranges but those that were `set`: once, when all nodes are known.
    pub fn retain(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let routes = inner.netlink.routes()?;
        let tunnel = inner.tunnels.is_some().then_some(inner.link);
        let own = |net: &IpNet| self.config.own.iter().any(|range| range.contains(net));
        for route in &routes {
            let Some(subnet) = leads_into(route, &self.config.cluster, tunnel) else { continue };
            if !own(&subnet) && !inner.known.contains_key(&subnet) {
                // As it is: another run's may be of another kind.
                inner.forget(self.config.backend, route)?;
            }
        }
        inner.retain(self.config.backend)
    }

    /// Removes the devices and every route, for `reset`; needs nothing to have been opened.
    pub fn remove_all(device_prefix: &str, cluster: &[IpNet]) -> Result<()> {
        let mut netlink = Netlink::open()?;
        for device in other_devices(None, device_prefix) {
            forgive_missing(netlink.delete_link_named(&device))?;
        }
        for route in netlink.routes()? {
            if leads_into(&route, cluster, None).is_some() {
                forgive_missing(netlink.delete_route(&route))?;
            }
        }
        Ok(())
    }
}

/// The first address of the family that a node has.
fn reached_by(subnet: IpNet, node: &PeerNode<'_>, is_v4: bool) -> Result<IpAddr> {
    node.addresses.iter().copied().find(|address| address.is_ipv4() == is_v4).ok_or_else(|| {
        let family = if is_v4 { "IPv4" } else { "IPv6" };
        Error::Config(format!("the node of {subnet} has no {family} address to reach it by; name one with --node-ip"))
    })
}

/// The range that a route with a gateway, or one over the link of tunnels, leads to, if it is part of one of the
/// cluster's.
fn leads_into(route: &Route, cluster: &[IpNet], tunnel: Option<u32>) -> Option<IpNet> {
    let net = route.destination;
    let within = cluster.iter().any(|range| range.contains(&net) && net != *range);
    let leads = route.gateway.is_some() || (tunnel.is_some() && route.link == tunnel);
    (leads && within).then_some(net)
}

impl Inner {
    /// Makes the route to a range, and what VXLAN needs to know for it.
    fn lead(&mut self, subnet: IpNet, way: Way) -> Result<()> {
        if self.known.get(&subnet) == Some(&way) {
            return Ok(());
        }
        let (gateway, scope) = match way {
            Way::Vxlan(node, hardware) => {
                vxlan::introduce(&mut self.netlink, self.link, subnet, node, hardware)?;
                (Some(device_address(subnet)), Scope::OnLink)
            }
            Way::Gateway(node) => (Some(node), Scope::Universe),
            Way::Tunnel(_) => (None, Scope::Link),
        };
        let link = Some(self.link);
        self.netlink.set_route(&Route { destination: subnet, gateway, link, scope, source: None })?;
        self.known.insert(subnet, way);
        Ok(())
    }

    /// The route goes first: nothing is sent to a node that is half forgotten.
    fn forget(&mut self, backend: Backend, route: &Route) -> Result<()> {
        forgive_missing(self.netlink.delete_route(route))?;
        match backend {
            Backend::Vxlan => vxlan::forget(&mut self.netlink, self.link, route.destination),
            Backend::HostGateway | Backend::Wireguard => Ok(()),
        }
    }

    /// After a range lost this way: its peer keeps the ranges that still have it, and goes when there is none.
    fn settle(&mut self, way: Way) -> Result<()> {
        let (Some(tunnels), Way::Tunnel(TunnelEnd { key, .. })) = (&mut self.tunnels, way) else { return Ok(()) };
        let mut end = None;
        let mut subnets = Vec::new();
        for (subnet, known) in &self.known {
            match known {
                Way::Tunnel(of) if of.key == key => {
                    end = Some(*of);
                    subnets.push(*subnet);
                }
                _ => {}
            }
        }
        match end {
            Some(end) => tunnels.set(end, subnets),
            None => tunnels.remove(key),
        }
    }

    /// Takes away what the kernel knows of nodes that nobody told.
    fn retain(&mut self, backend: Backend) -> Result<()> {
        let ways = self.known.values();
        match (&mut self.tunnels, backend) {
            (Some(tunnels), _) => {
                let key = |way: &Way| if let Way::Tunnel(end) = way { Some(end.key) } else { None };
                tunnels.retain(&ways.filter_map(key).collect())
            }
            (None, Backend::Vxlan) => {
                let hardware = |way: &Way| if let Way::Vxlan(_, hardware) = way { Some(*hardware) } else { None };
                vxlan::retain(&mut self.netlink, self.link, &ways.filter_map(hardware).collect())
            }
            (None, _) => Ok(()),
        }
    }
}

/// Gives a device an address of each of this node's ranges, and takes those of earlier ranges; returns its index.
fn address_device(netlink: &mut Netlink, name: &str, config: &PeersConfig) -> Result<u32> {
    let missing = || Error::Config(format!("the device {name} vanished while it was set up"));
    let link = netlink.link(name)?.ok_or_else(missing)?.index;
    // What the host itself sends to sandboxes of other nodes comes from here, and so do masqueraded packets.
    let wanted: Vec<IpNet> = config.own.iter().map(|subnet| device_address(*subnet).into()).collect();
    let all = netlink.addresses()?;
    let present: Vec<IpNet> = all.iter().filter(|found| found.link == link).map(|found| found.address).collect();
    let of_cluster = |address: &IpNet| config.cluster.iter().any(|range| range.contains(&address.addr()));
    for stale in present.iter().filter(|address| of_cluster(address) && !wanted.contains(address)) {
        netlink.delete_address(link, *stale)?;
    }
    for address in wanted.into_iter().filter(|address| !present.contains(address)) {
        netlink.add_address(link, address)?;
    }
    Ok(link)
}
