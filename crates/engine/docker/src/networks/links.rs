//! Bridges on the host, and interfaces in the namespaces of containers.

use super::records::{Joined, Network};
use super::rules::failed;
use super::settings::Settings;
use crate::error::{DockerError, Result};
use ipnet::IpNet;
use pintle_netlink::{
    Address, Bridge, HardwareAddress, LinkChange, Netlink, Peer, Port, Route, Scope, Stacked, StackedKind, Veth,
    forgive_missing, namespace,
};
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

/// The group of our interfaces on the host, by which a reset finds them: `pind` in ASCII.
pub(super) const GROUP: u32 = 0x7069_6e64;

/// Makes the bridge of a network, or adopts the one of an earlier run; returns its index. The one that this process
/// has `raised` is left as it is.
pub(super) fn raise_bridge(netlink: &mut Netlink, network: &Network, raised: Option<u32>) -> Result<u32> {
    let name = network.bridge.as_str();
    match netlink.link(name).map_err(failed)? {
        Some(link) if link.up && raised == Some(link.index) => return Ok(link.index),
        Some(link) if link.kind == "bridge" => {
            let change = LinkChange { up: Some(true), ..LinkChange::default() };
            netlink.set_link(link.index, &change).map_err(failed)?;
        }
        Some(link) => {
            let kind = if link.kind.is_empty() { "device" } else { link.kind.as_str() };
            return Err(DockerError::invalid(format!("{name} exists and is no bridge but a {kind}")));
        }
        None => {
            let hardware = hardware_of(&network.id, network.pool(false).map(|p| p.gateway));
            netlink.add_bridge(&Bridge { name, mtu: network.mtu, hardware }).map_err(failed)?;
            let link = netlink.link(name).map_err(failed)?.map(|l| l.index);
            link.map_or(Ok(()), |index| netlink.set_group(index, GROUP)).map_err(failed)?;
        }
    }
    let vanished = || failed(format_args!("bridge {name} vanished while it was set up"));
    let link = netlink.link(name).map_err(failed)?.ok_or_else(vanished)?.index;
    let present: Vec<IpNet> = netlink
        .addresses()
        .map_err(failed)?
        .into_iter()
        .filter(|a: &Address| a.link == link)
        .map(|a| a.address)
        .collect();
    for pool in &network.pools {
        if !present.contains(&pool.gateway_net()) {
            netlink.add_address(link, pool.gateway_net()).map_err(failed)?;
        }
    }
    if network.pool(false).is_some() {
        set_kernel(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        set_kernel(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
    }
    Ok(link)
}

/// Writes below /proc/sys/net where something else is said; true when it has changed something.
pub(super) fn set_kernel(name: &str, value: &str) -> Result<bool> {
    let path = Path::new("/proc/sys/net").join(name);
    if fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
        return Ok(false);
    }
    match fs::write(&path, value) {
        Ok(()) => Ok(true),
        // A kernel without IPv6 has none of its settings.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && name.starts_with("ipv6/") => Ok(false),
        Err(e) => Err(DockerError::io(format_args!("write {}", path.display()), e)),
    }
}

/// `02:42` and the IPv4 address, known without asking and unique where that is; else from the id.
pub(super) fn hardware_of(id: &str, address: Option<IpAddr>) -> HardwareAddress {
    if let Some(IpAddr::V4(v4)) = address {
        let [a, b, c, d] = v4.octets();
        return HardwareAddress([0x02, 0x42, a, b, c, d]);
    }
    let [.., a, b, c, d, e] = hash(id).to_be_bytes();
    HardwareAddress([0x02, a, b, c, d, e])
}

/// FNV-1a.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Six pairs of hexadecimal digits.
pub(super) fn parse_hardware(text: &str) -> Option<HardwareAddress> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|p| p.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(HardwareAddress(bytes))
}

/// Makes the interface of one connection, with its addresses. `raised` is the bridge, where this process has raised it.
pub(super) fn plug(
    netlink: &mut Netlink,
    settings: &mut Settings,
    network: &Network,
    joined: &Joined,
    netns: &File,
    raised: &mut Option<u32>,
) -> Result<()> {
    let hardware = parse_hardware(&joined.mac);
    let peer = Peer { name: &joined.interface, hardware, namespace: Some(netns.as_fd()) };
    if network.is_bridge() {
        let bridge = raise_bridge(netlink, network, *raised)?;
        *raised = Some(bridge);
        let name = joined.host_interface.as_str();
        let veth = Veth { name, mtu: network.mtu, master: Some(bridge), group: GROUP, peer };
        netlink.add_port(&veth).map_err(failed)?;
    } else {
        let parent = parent_of(netlink, network)?;
        let kind = if network.driver == "ipvlan" { StackedKind::Ipvlan } else { StackedKind::Macvlan };
        netlink.add_stacked(&Stacked { kind, parent, mtu: network.mtu, peer }).map_err(failed)?;
    }
    let without_v6 = if joined.v6.is_some() { "0" } else { "1" };
    settings.set(netns, &format!("ipv6/conf/{}/disable_ipv6", joined.interface), without_v6)?;
    let mut inside = Netlink::in_namespace(netns.as_fd()).map_err(failed)?;
    let link = inside.link(&joined.interface).map_err(failed)?.ok_or_else(|| failed("the interface vanished"))?.index;
    inside.set_link(link, &LinkChange { up: Some(true), ..LinkChange::default() }).map_err(failed)?;
    if network.is_bridge() {
        // A container that meets itself through a port of the host.
        let port = Port { hairpin: true, isolated: !network.has_icc() };
        netlink.raise_port(&joined.host_interface, port).map_err(failed)?;
        // To ask for a link makes the kernel see its carrier now, and not when it finds the time.
        inside.link(&joined.interface).map_err(failed)?;
    }
    for address in joined.v4.iter().chain(&joined.v6).chain(&joined.link_local) {
        inside.add_address(link, *address).map_err(failed)?;
    }
    if joined.sysctls.is_empty() {
        return Ok(());
    }
    let (interface, sysctls) = (joined.interface.clone(), joined.sysctls.clone());
    namespace::enter(netns.as_fd(), move || super::endpoint::apply(&interface, &sysctls)).map_err(failed)?
}

/// The interface below a macvlan or ipvlan.
fn parent_of(netlink: &mut Netlink, network: &Network) -> Result<u32> {
    let name = network.options.get("parent").map(String::as_str).unwrap_or_default();
    let found = netlink.link(name).map_err(failed)?;
    found.map(|l| l.index).ok_or_else(|| {
        DockerError::invalid(format!("invalid subinterface vlan name {name}, example formatting is eth0.10"))
    })
}

/// Makes the default routes of a container those of the connections that shall have them.
pub(super) fn route(joined: &[Joined], names: &[String], netns: &File) -> Result<()> {
    let mut inside = Netlink::in_namespace(netns.as_fd()).map_err(failed)?;
    for v6 in [false, true] {
        let gateway_of = |j: &Joined| if v6 { j.gateway_v6 } else { j.gateway_v4 };
        let best = best(joined, names, gateway_of);
        let Some(best) = best else { continue };
        let link = inside.link(&best.interface).map_err(failed)?.map(|l| l.index);
        let destination = if v6 { IpNet::V6(ipnet::Ipv6Net::default()) } else { IpNet::V4(ipnet::Ipv4Net::default()) };
        let gateway = gateway_of(best);
        let wanted = Route { destination, gateway, link, scope: Scope::Universe, source: None };
        for old in inside.routes().map_err(failed)? {
            if old.destination == destination && (old.gateway != gateway || old.link != link) {
                inside.delete_route(&old).map_err(failed)?;
            }
        }
        inside.set_route(&wanted).map_err(failed)?;
    }
    Ok(())
}

/// The connection with the highest priority, of equal ones the first by its network's name.
pub(super) fn best<'a>(
    joined: &'a [Joined],
    names: &[String],
    gateway_of: impl Fn(&Joined) -> Option<IpAddr>,
) -> Option<&'a Joined> {
    let with = joined.iter().zip(names).filter(|(j, _)| gateway_of(j).is_some());
    with.min_by_key(|(j, name)| (std::cmp::Reverse(j.priority), (*name).clone())).map(|(j, _)| j)
}

/// Removes the interface of a connection; succeeds when it is not there.
pub(super) fn unplug(host: &File, joined: &Joined, netns: &Path) -> Result<()> {
    if joined.interface.is_empty() {
        // `host` and `none` give no interface.
        return Ok(());
    }
    if !joined.host_interface.is_empty() {
        // On a socket of its own, because the kernel takes its time.
        let mut netlink = Netlink::in_namespace(host.as_fd()).map_err(failed)?;
        return forgive_missing(netlink.delete_link_named(&joined.host_interface)).map_err(failed);
    }
    let Ok(netns) = namespace::open(netns) else { return Ok(()) };
    let mut netlink = Netlink::in_namespace(netns.as_fd()).map_err(failed)?;
    forgive_missing(netlink.delete_link_named(&joined.interface)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_and_made() {
        assert_eq!(parse_hardware("02:42:ac:11:00:02").unwrap().0, [2, 0x42, 0xac, 0x11, 0, 2]);
        for bad in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "zz:42:ac:11:00:02"] {
            assert!(parse_hardware(bad).is_none(), "{bad}");
        }
        let made = hardware_of("x", Some("172.17.0.2".parse().unwrap()));
        assert_eq!(made.to_string(), "02:42:ac:11:00:02");
        assert_eq!(hardware_of("x", None).0[0], 2);
    }
}
