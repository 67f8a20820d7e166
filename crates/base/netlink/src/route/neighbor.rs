//! Neighbours: which hardware address an address on a link has, said once and for all.

use super::{AddressBytes, HardwareAddress, Netlink, family, parse_address};
use crate::Result;
use crate::socket::flag;
use crate::wire;
use std::net::IpAddr;

/// Bytes of `struct ndmsg`.
pub(super) const NEIGHBOR_HEADER: usize = 12;
/// Attributes of a neighbour (linux/neighbour.h).
pub(super) const DESTINATION: u16 = 1;
pub(super) const HARDWARE: u16 = 2;

/// A permanent entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// The link's index.
    pub link: u32,
    pub address: IpAddr,
    pub hardware: HardwareAddress,
}

impl Netlink {
    /// All entries whose hardware address is known, permanent or learned.
    pub fn neighbors(&mut self) -> Result<Vec<Neighbor>> {
        let mut neighbors = Vec::new();
        self.socket.dump(libc::RTM_GETNEIGH, &[0; NEIGHBOR_HEADER], "list neighbours", |message| {
            neighbors.extend(parse(message.payload));
        })?;
        Ok(neighbors)
    }

    /// Adds a permanent entry, or changes the one of the same address.
    pub fn set_neighbor(&mut self, neighbor: &Neighbor) -> Result<()> {
        self.change_neighbor(libc::RTM_NEWNEIGH, flag(libc::NLM_F_CREATE | libc::NLM_F_REPLACE), "set", neighbor)
    }

    /// Deletes an entry.
    pub fn delete_neighbor(&mut self, neighbor: &Neighbor) -> Result<()> {
        self.change_neighbor(libc::RTM_DELNEIGH, 0, "delete", neighbor)
    }

    fn change_neighbor(&mut self, kind: u16, flags: u16, verb: &str, neighbor: &Neighbor) -> Result<()> {
        let mut header = [0; NEIGHBOR_HEADER];
        header[0] = family(neighbor.address);
        header[4..8].copy_from_slice(&neighbor.link.to_ne_bytes());
        header[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
        let doing = || format!("{verb} neighbour {} on link {}", neighbor.address, neighbor.link);
        self.socket.request(kind, flags, &header, doing, |w| {
            w.attribute(DESTINATION, AddressBytes::of(neighbor.address).as_slice());
            w.attribute(HARDWARE, &neighbor.hardware.0);
        })
    }
}

fn parse(payload: &[u8]) -> Option<Neighbor> {
    let attributes = payload.get(NEIGHBOR_HEADER..)?;
    Some(Neighbor {
        link: wire::u32_at(payload, 4)?,
        address: parse_address(wire::attribute(attributes, DESTINATION)?)?,
        hardware: HardwareAddress(wire::attribute(attributes, HARDWARE)?.try_into().ok()?),
    })
}
