//! The VXLAN device of a node, and what is known of others' without asking.

use super::{Backend, PeersConfig, device_address, sandbox_mtu};
use crate::bridge::GROUP;
use crate::{Error, Result};
use ipnet::IpNet;
use pintle_netlink::{Forwarding, HardwareAddress, LinkChange, Neighbor, Netlink, Vxlan, forgive_missing};
use std::collections::HashSet;
use std::net::IpAddr;

/// As flannel has them, so that firewalls that were opened for one are open for the other.
const VXLAN_ID: u32 = 1;
const VXLAN_PORT: u16 = 8472;

/// `0a:59` and what tells the node's range from others: its first address, or of IPv6 the second four bytes of it.
pub(super) fn hardware_of(subnet: IpNet) -> HardwareAddress {
    let [a, b, c, d] = match subnet.network() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => ((u128::from(v6) >> 64) as u32).to_be_bytes(),
    };
    HardwareAddress([0x0a, 0x59, a, b, c, d])
}

/// The VXLAN device of these devices.
pub(super) fn device_name(prefix: &str) -> String {
    format!("{prefix}-vx")
}

/// Makes or adopts the device.
pub(super) fn raise_device(netlink: &mut Netlink, config: &PeersConfig, node: IpAddr, underlay: u32) -> Result<()> {
    let first = *config.own.first().ok_or_else(|| Error::Config("this node has no range of pod addresses".into()))?;
    let (name, hardware) = (device_name(&config.device_prefix), hardware_of(first));
    let mtu = sandbox_mtu(Backend::Vxlan, node)?;
    match netlink.link(&name)? {
        Some(link) if link.kind == "vxlan" && link.hardware == Some(hardware) && link.mtu == mtu => {
            netlink.set_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
        }
        found => {
            if found.is_some() {
                // Of another range, or not ours at all under a name that is.
                netlink.delete_link_named(&name)?;
            }
            netlink.add_vxlan(&Vxlan {
                name: &name,
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
    Ok(())
}

/// Where a node's device is, so that nobody has to ask.
pub(super) fn introduce(
    netlink: &mut Netlink,
    link: u32,
    subnet: IpNet,
    node: IpAddr,
    hardware: HardwareAddress,
) -> Result<()> {
    netlink.set_forwarding(&Forwarding { link, hardware, node })?;
    Ok(netlink.set_neighbor(&Neighbor { link, address: device_address(subnet), hardware })?)
}

/// The forwarding entry goes with the node's primary range.
pub(super) fn forget(netlink: &mut Netlink, link: u32, subnet: IpNet) -> Result<()> {
    let hardware = hardware_of(subnet);
    forgive_missing(netlink.delete_neighbor(&Neighbor { link, address: device_address(subnet), hardware }))?;
    delete_forwardings(netlink, |entry| entry.link == link && entry.hardware == hardware)
}

/// Takes away all forwarding entries but these.
pub(super) fn retain(netlink: &mut Netlink, link: u32, wanted: &HashSet<HardwareAddress>) -> Result<()> {
    delete_forwardings(netlink, |entry| entry.link == link && !wanted.contains(&entry.hardware))
}

fn delete_forwardings(netlink: &mut Netlink, stale: impl Fn(&Forwarding) -> bool) -> Result<()> {
    for entry in netlink.forwardings()?.into_iter().filter(stale) {
        forgive_missing(netlink.delete_forwarding(&entry))?;
    }
    Ok(())
}
