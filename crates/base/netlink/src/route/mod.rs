//! rtnetlink: links, addresses, routes and neighbours of one network namespace.

mod address;
mod link;
mod neighbor;
mod queue;
mod table;
mod vxlan;

pub use address::Address;
pub(crate) use link::INFO_KIND;
pub use link::{Bridge, HardwareAddress, Link, LinkChange, Peer, Port, Stacked, StackedKind, Veth};
pub use neighbor::Neighbor;
pub use queue::TokenBucket;
pub use table::{Route, Scope};
pub use vxlan::{Forwarding, Vxlan};

use crate::Result;
use crate::socket::Socket;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Speaks rtnetlink in the network namespace where it was opened.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens a socket in the caller's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::route()? })
    }

    /// Opens a socket in another network namespace.
    pub fn in_namespace(namespace: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { socket: Socket::inside(namespace, Socket::route)? })
    }
}

/// An address in network byte order, without allocating.
pub(crate) struct AddressBytes {
    bytes: [u8; 16],
    length: usize,
}

impl AddressBytes {
    pub(crate) fn of(address: IpAddr) -> Self {
        let mut bytes = [0; 16];
        let length = match address {
            IpAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.octets());
                4
            }
            IpAddr::V6(v6) => {
                bytes.copy_from_slice(&v6.octets());
                16
            }
        };
        Self { bytes, length }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn family(address: IpAddr) -> u8 {
    // Both fit: AF_INET is 2, AF_INET6 is 10.
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

/// Reads 4 or 16 bytes as an address; nothing for any other length.
pub(crate) fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
