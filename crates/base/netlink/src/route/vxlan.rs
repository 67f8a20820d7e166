//! VXLAN devices: Ethernet frames in datagrams between nodes, and the table that says which node has which address.

use super::link::{INFO_DATA, INFO_KIND};
use super::neighbor::{DESTINATION, HARDWARE, NEIGHBOR_HEADER};
use super::{AddressBytes, HardwareAddress, Netlink, parse_address};
use crate::Result;
use crate::socket::flag;
use crate::wire;
use std::net::IpAddr;

/// Attributes of the data of VXLAN (linux/if_link.h).
const ID: u16 = 1;
const UNDERLAY: u16 = 3;
const LOCAL: u16 = 4;
const LEARNING: u16 = 7;
const PORT: u16 = 15;
const LOCAL_V6: u16 = 17;

/// A VXLAN device to make. It learns nothing: every peer is told with [`Netlink::set_forwarding`].
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a> {
    pub name: &'a str,
    pub mtu: u32,
    pub hardware: HardwareAddress,
    /// The number of the network, of 24 bits.
    pub id: u32,
    /// The UDP port on every node.
    pub port: u16,
    /// This node's address, which datagrams come from.
    pub local: IpAddr,
    /// The index of the link that has this address; 0 leaves it to the routes.
    pub underlay: u32,
    /// The group that a reset finds it by.
    pub group: u32,
}

/// Behind which node a hardware address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// The index of the VXLAN device.
    pub link: u32,
    pub hardware: HardwareAddress,
    pub node: IpAddr,
}

impl Netlink {
    /// Makes a VXLAN device and raises it.
    pub fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<()> {
        self.add_link(vxlan.name, "vxlan", |w| {
            w.u32(libc::IFLA_MTU, vxlan.mtu);
            w.attribute(libc::IFLA_ADDRESS, &vxlan.hardware.0);
            w.u32(libc::IFLA_GROUP, vxlan.group);
            w.nest(libc::IFLA_LINKINFO, |w| {
                w.attribute(INFO_KIND, b"vxlan");
                w.nest(INFO_DATA, |w| {
                    w.u32(ID, vxlan.id);
                    w.u32(UNDERLAY, vxlan.underlay);
                    let local = if vxlan.local.is_ipv4() { LOCAL } else { LOCAL_V6 };
                    w.attribute(local, AddressBytes::of(vxlan.local).as_slice());
                    w.u8(LEARNING, 0);
                    w.attribute(PORT, &vxlan.port.to_be_bytes());
                });
            });
        })
    }

    /// Tells a VXLAN device behind which node a hardware address is, in place of what it was told before.
    pub fn set_forwarding(&mut self, entry: &Forwarding) -> Result<()> {
        let flags = flag(libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
        self.change_forwarding(libc::RTM_NEWNEIGH, flags, "set", entry)
    }

    /// Takes such an entry away.
    pub fn delete_forwarding(&mut self, entry: &Forwarding) -> Result<()> {
        self.change_forwarding(libc::RTM_DELNEIGH, 0, "delete", entry)
    }

    /// All entries of VXLAN devices.
    pub fn forwardings(&mut self) -> Result<Vec<Forwarding>> {
        let mut header = [0; NEIGHBOR_HEADER];
        header[0] = libc::AF_BRIDGE as u8;
        let mut entries = Vec::new();
        self.socket.dump(libc::RTM_GETNEIGH, &header, "list forwarding entries", |message| {
            entries.extend(parse(message.payload));
        })?;
        Ok(entries)
    }

    fn change_forwarding(&mut self, kind: u16, flags: u16, verb: &str, entry: &Forwarding) -> Result<()> {
        let mut header = [0; NEIGHBOR_HEADER];
        header[0] = libc::AF_BRIDGE as u8;
        header[4..8].copy_from_slice(&entry.link.to_ne_bytes());
        header[8..10].copy_from_slice(&(libc::NUD_PERMANENT | libc::NUD_NOARP).to_ne_bytes());
        header[10] = libc::NTF_SELF;
        let doing = || format!("{verb} the way to {} on link {}", entry.hardware, entry.link);
        self.socket.request(kind, flags, &header, doing, |w| {
            w.attribute(DESTINATION, AddressBytes::of(entry.node).as_slice());
            w.attribute(HARDWARE, &entry.hardware.0);
        })
    }
}

/// Entries of bridges have no node.
fn parse(payload: &[u8]) -> Option<Forwarding> {
    let attributes = payload.get(NEIGHBOR_HEADER..)?;
    Some(Forwarding {
        link: wire::u32_at(payload, 4)?,
        hardware: HardwareAddress(wire::attribute(attributes, HARDWARE)?.try_into().ok()?),
        node: parse_address(wire::attribute(attributes, DESTINATION)?)?,
    })
}
