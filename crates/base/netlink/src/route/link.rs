//! Links: bridges, pairs of virtual Ethernet interfaces, and what can be changed about any of them.

use super::Netlink;
use crate::socket::flag;
use crate::wire::{self, Message, Writer};
use crate::{Error, Result};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attributes of `IFLA_LINKINFO`, and of its data for veth (linux/if_link.h, linux/veth.h).
pub(crate) const INFO_KIND: u16 = 1;
pub(super) const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_PEER: u16 = 1;
/// Attributes of a bridge's port (`INFO_SLAVE_DATA`).
const PORT_HAIRPIN: u16 = 4;
const PORT_ISOLATED: u16 = 33;
/// How IPv6 makes addresses of a link's own (`IFLA_AF_SPEC` of `AF_INET6`): not at all.
const ADDRESS_MODE: u16 = 8;
const NO_ADDRESSES: u8 = 1;
/// Attributes of the data of macvlan and ipvlan (linux/if_link.h), and the modes in which neighbours meet.
const MACVLAN_MODE: u16 = 1;
const MACVLAN_BRIDGE: u32 = 4;
const IPVLAN_MODE: u16 = 1;
const IPVLAN_L2: u16 = 0;
/// Bytes of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;

/// A hardware address of 48 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HardwareAddress(pub [u8; 6]);

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, `vxlan` …; empty for hardware and loopback.
    pub kind: String,
    pub up: bool,
    pub mtu: u32,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    pub hardware: Option<HardwareAddress>,
}

/// A bridge to make.
#[derive(Clone, Copy, Debug)]
pub struct Bridge<'a> {
    pub name: &'a str,
    pub mtu: u32,
    /// Fixed, because a bridge without one takes the lowest of its ports' and changes it as they come and go.
    pub hardware: HardwareAddress,
}

/// A pair of connected interfaces to make. This end comes up; the kernel allows the far one to only when both exist.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub mtu: u32,
    /// The index of the bridge to put this end on.
    pub master: Option<u32>,
    /// The group of this end; 0 is the one that every link is in at first.
    pub group: u32,
    pub peer: Peer<'a>,
}

/// What a bridge does at one of its ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// It may send a frame back through the port that it came from.
    pub hairpin: bool,
    /// It passes no frames between this port and others that are isolated too.
    pub isolated: bool,
}

/// The far end of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    pub name: &'a str,
    pub hardware: Option<HardwareAddress>,
    /// Where it appears; nothing is this namespace.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// How an interface shares another one's wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackedKind {
    /// With a hardware address of its own.
    Macvlan,
    /// With the hardware address of the one below.
    Ipvlan,
}

/// An interface on top of another one, to make; those on one reach each other.
#[derive(Clone, Copy, Debug)]
pub struct Stacked<'a> {
    pub kind: StackedKind,
    /// The index of the one below.
    pub parent: u32,
    pub mtu: u32,
    pub peer: Peer<'a>,
}

/// What to change about a link; nothing stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    pub up: Option<bool>,
    pub name: Option<&'a str>,
    pub mtu: Option<u32>,
    /// The index of a bridge; 0 takes it off its bridge.
    pub master: Option<u32>,
    pub namespace: Option<BorrowedFd<'a>>,
}

impl Netlink {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        self.socket.dump(libc::RTM_GETLINK, &header(libc::AF_UNSPEC, 0, 0, 0), "list links", |message| {
            links.extend(parse(&message));
        })?;
        Ok(links)
    }

    /// The link of this name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        check_name(name)?;
        let header = header(libc::AF_UNSPEC, 0, 0, 0);
        let fill = |w: &mut Writer| w.string(libc::IFLA_IFNAME, name);
        let found = self.socket.get(libc::RTM_GETLINK, &header, "look up a link", fill, |message| parse(&message));
        match found {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge and raises it.
    pub fn add_bridge(&mut self, bridge: &Bridge<'_>) -> Result<()> {
        self.add_link(bridge.name, "bridge", |w| {
            w.u32(libc::IFLA_MTU, bridge.mtu);
            w.attribute(libc::IFLA_ADDRESS, &bridge.hardware.0);
            w.nest(libc::IFLA_LINKINFO, |w| w.attribute(INFO_KIND, b"bridge"));
        })
    }

    /// Makes a pair, the far end directly in its namespace, in one request.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        self.add_link(veth.name, "veth", |w| write_veth(w, veth))
    }

    /// The same, but this end stays down for [`Self::raise_port`]. A bridge looks at all of its ports whenever one of
    /// them gets or loses its carrier: a port that comes up last, when the far end is up, does that once, not three
    /// times.
    pub fn add_port(&mut self, veth: &Veth<'_>) -> Result<()> {
        self.add_link_with(veth.name, "veth", 0, |w| write_veth(w, veth))
    }

    /// Raises a bridge's port. It gets no IPv6 address of its own, which nobody could use: making one sends a dozen
    /// packets to whatever is behind the port, and leaves addresses and routes that the kernel goes through for others.
    pub fn raise_port(&mut self, name: &str, port: Port) -> Result<()> {
        match self.change_port(name, port, true) {
            // A link without IPv6.
            Err(error) if error.code() == Some(libc::EAFNOSUPPORT) => self.change_port(name, port, false)?,
            changed => changed?,
        }
        let up = libc::IFF_UP as u32;
        let header = header(libc::AF_UNSPEC, 0, up, up);
        let fill = |w: &mut Writer| w.string(libc::IFLA_IFNAME, name);
        self.socket.request(libc::RTM_NEWLINK, 0, &header, || format!("raise link {name}"), fill)
    }

    fn change_port(&mut self, name: &str, port: Port, has_ipv6: bool) -> Result<()> {
        check_name(name)?;
        let header = header(libc::AF_UNSPEC, 0, 0, 0);
        self.socket.request(
            libc::RTM_NEWLINK,
            0,
            &header,
            || format!("set up port {name}"),
            |w| {
                w.string(libc::IFLA_IFNAME, name);
                w.nest(libc::IFLA_LINKINFO, |w| {
                    w.attribute(INFO_SLAVE_KIND, b"bridge");
                    w.nest(INFO_SLAVE_DATA, |w| {
                        w.u8(PORT_HAIRPIN, u8::from(port.hairpin));
                        w.u8(PORT_ISOLATED, u8::from(port.isolated));
                    });
                });
                if has_ipv6 {
                    let family = libc::AF_INET6 as u16;
                    w.nest(libc::IFLA_AF_SPEC, |w| w.nest(family, |w| w.u8(ADDRESS_MODE, NO_ADDRESSES)));
                }
            },
        )
    }

    /// Makes an interface on top of another, directly in its namespace.
    pub fn add_stacked(&mut self, stacked: &Stacked<'_>) -> Result<()> {
        let kind = match stacked.kind {
            StackedKind::Macvlan => "macvlan",
            StackedKind::Ipvlan => "ipvlan",
        };
        self.add_link(stacked.peer.name, kind, |w| {
            w.u32(libc::IFLA_LINK, stacked.parent);
            w.u32(libc::IFLA_MTU, stacked.mtu);
            if let (Some(hardware), StackedKind::Macvlan) = (stacked.peer.hardware, stacked.kind) {
                w.attribute(libc::IFLA_ADDRESS, &hardware.0);
            }
            if let Some(namespace) = stacked.peer.namespace {
                w.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
            }
            w.nest(libc::IFLA_LINKINFO, |w| {
                w.attribute(INFO_KIND, kind.as_bytes());
                w.nest(INFO_DATA, |w| match stacked.kind {
                    StackedKind::Macvlan => w.u32(MACVLAN_MODE, MACVLAN_BRIDGE),
                    StackedKind::Ipvlan => w.attribute(IPVLAN_MODE, &IPVLAN_L2.to_ne_bytes()),
                });
            });
        })
    }

    pub(crate) fn add_link(&mut self, name: &str, kind: &str, fill: impl FnOnce(&mut Writer)) -> Result<()> {
        self.add_link_with(name, kind, libc::IFF_UP as u32, fill)
    }

    fn add_link_with(&mut self, name: &str, kind: &str, flags: u32, fill: impl FnOnce(&mut Writer)) -> Result<()> {
        check_name(name)?;
        self.socket.request(
            libc::RTM_NEWLINK,
            flag(libc::NLM_F_CREATE | libc::NLM_F_EXCL),
            &header(libc::AF_UNSPEC, 0, flags, flags),
            || format!("add {kind} link {name}"),
            |w| {
                w.string(libc::IFLA_IFNAME, name);
                fill(w);
            },
        )
    }

    /// Changes a link in one request.
    pub fn set_link(&mut self, index: u32, change: &LinkChange<'_>) -> Result<()> {
        if let Some(name) = change.name {
            check_name(name)?;
        }
        let up = libc::IFF_UP as u32;
        let flags = if change.up == Some(true) { up } else { 0 };
        let mask = if change.up.is_some() { up } else { 0 };
        self.socket.request(
            libc::RTM_NEWLINK,
            0,
            &header(libc::AF_UNSPEC, index, flags, mask),
            || format!("change link {index}"),
            |w| write_change(w, change),
        )
    }

    /// Raises the loopback interface, which is down in a new namespace.
    pub fn raise_loopback(&mut self) -> Result<()> {
        // The loopback is the first device of every namespace.
        self.set_link(1, &LinkChange { up: Some(true), ..LinkChange::default() })
    }

    /// Puts a link into a group, see [`Self::delete_group`].
    pub fn set_group(&mut self, index: u32, group: u32) -> Result<()> {
        let header = header(libc::AF_UNSPEC, index, 0, 0);
        let fill = |w: &mut Writer| w.u32(libc::IFLA_GROUP, group);
        self.socket.request(libc::RTM_NEWLINK, 0, &header, || format!("set the group of link {index}"), fill)
    }

    /// Deletes a link, and the other end of a pair with it.
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let header = header(libc::AF_UNSPEC, index, 0, 0);
        self.socket.request(libc::RTM_DELLINK, 0, &header, || format!("delete link {index}"), |_| ())
    }

    /// Deletes all links of a group at once, which takes hardly longer than one: the kernel waits for the last user of
    /// a link, some 30 ms, only once.
    pub fn delete_group(&mut self, group: u32) -> Result<()> {
        let header = header(libc::AF_UNSPEC, 0, 0, 0);
        let fill = |w: &mut Writer| w.u32(libc::IFLA_GROUP, group);
        self.socket.request(libc::RTM_DELLINK, 0, &header, || format!("delete the links of group {group}"), fill)
    }

    /// Deletes the link of this name without looking for its index first.
    pub fn delete_link_named(&mut self, name: &str) -> Result<()> {
        check_name(name)?;
        let header = header(libc::AF_UNSPEC, 0, 0, 0);
        let fill = |w: &mut Writer| w.string(libc::IFLA_IFNAME, name);
        self.socket.request(libc::RTM_DELLINK, 0, &header, || format!("delete link {name}"), fill)
    }
}

fn write_veth(w: &mut Writer, veth: &Veth<'_>) {
    w.u32(libc::IFLA_MTU, veth.mtu);
    if let Some(master) = veth.master {
        w.u32(libc::IFLA_MASTER, master);
    }
    w.u32(libc::IFLA_GROUP, veth.group);
    w.nest(libc::IFLA_LINKINFO, |w| {
        w.attribute(INFO_KIND, b"veth");
        w.nest(INFO_DATA, |w| {
            w.nest_with(VETH_PEER, &header(libc::AF_UNSPEC, 0, 0, 0), |w| write_peer(w, veth));
        });
    });
}

fn write_peer(w: &mut Writer, veth: &Veth<'_>) {
    w.string(libc::IFLA_IFNAME, veth.peer.name);
    w.u32(libc::IFLA_MTU, veth.mtu);
    if let Some(hardware) = veth.peer.hardware {
        w.attribute(libc::IFLA_ADDRESS, &hardware.0);
    }
    if let Some(namespace) = veth.peer.namespace {
        w.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    }
}

fn write_change(w: &mut Writer, change: &LinkChange<'_>) {
    if let Some(name) = change.name {
        w.string(libc::IFLA_IFNAME, name);
    }
    if let Some(mtu) = change.mtu {
        w.u32(libc::IFLA_MTU, mtu);
    }
    if let Some(master) = change.master {
        w.u32(libc::IFLA_MASTER, master);
    }
    if let Some(namespace) = change.namespace {
        w.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    }
}

/// The kernel cuts longer names short in some places and refuses them in others; here they are always refused.
fn check_name(name: &str) -> Result<()> {
    if !name.is_empty() && name.len() < libc::IFNAMSIZ && !name.contains(['/', ':', ' ']) {
        return Ok(());
    }
    Err(Error::Refused {
        doing: format!("use {name:?} as a link's name"),
        source: std::io::Error::from_raw_os_error(libc::EINVAL),
        detail: "1 to 15 bytes without '/', ':' and spaces".into(),
    })
}

/// `struct ifinfomsg`.
fn header(family: i32, index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut bytes = [0; LINK_HEADER];
    bytes[0] = family as u8;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn parse(message: &Message<'_>) -> Option<Link> {
    if message.kind != libc::RTM_NEWLINK {
        return None;
    }
    let mut link = Link {
        index: wire::u32_at(message.payload, 4)?,
        name: String::new(),
        kind: String::new(),
        up: wire::u32_at(message.payload, 8)? & libc::IFF_UP as u32 != 0,
        mtu: 0,
        master: None,
        hardware: None,
    };
    for (kind, payload) in wire::attributes(message.payload.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = wire::text(payload),
            libc::IFLA_MTU => link.mtu = wire::u32_at(payload, 0)?,
            libc::IFLA_MASTER => link.master = wire::u32_at(payload, 0),
            libc::IFLA_ADDRESS => link.hardware = payload.try_into().ok().map(HardwareAddress),
            libc::IFLA_LINKINFO => {
                link.kind = wire::attribute(payload, INFO_KIND).map(wire::text).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}
