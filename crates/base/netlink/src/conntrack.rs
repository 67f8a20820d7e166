//! Connection tracking: deletes flows whose translation leads nowhere any more.
//!
//! TCP finds out by itself. UDP has no end: a client that keeps sending from one port would be led to a departed
//! endpoint for as long as it sends.

use crate::Result;
use crate::route::parse_address;
use crate::socket::{Socket, flag};
use crate::wire::{self, Writer};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
/// `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;
/// `CTA_*`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub protocol: u8,
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
}

/// A tracked flow. Of one whose destination was translated, the reply comes from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
    /// Whether anything came back yet.
    pub answered: bool,
}

/// Speaks to connection tracking of the network namespace where it was opened.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens a socket in the caller's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::netfilter()? })
    }

    /// Opens a socket in another network namespace.
    pub fn in_namespace(namespace: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { socket: Socket::inside(namespace, Socket::netfilter)? })
    }

    /// Deletes all flows, of both families, for which `wanted` says so; returns how many. Costs a walk over all flows.
    pub fn delete_where(&mut self, mut wanted: impl FnMut(&Flow) -> bool) -> Result<usize> {
        let mut found: Vec<(u8, Vec<u8>, Vec<u8>)> = Vec::new();
        self.socket.dump(GET, &header(libc::AF_UNSPEC as u8), "list tracked connections", |message| {
            let Some((header, attributes)) = message.payload.split_at_checked(FAMILY_HEADER) else { return };
            if parse(attributes).is_some_and(|flow| wanted(&flow))
                && let Some(original) = wire::attribute(attributes, ORIGINAL)
            {
                let id = wire::attribute(attributes, ID).unwrap_or_default();
                found.push((header[0], original.to_vec(), id.to_vec()));
            }
        })?;
        let mut deleted = 0;
        for (family, original, id) in &found {
            let fill = |w: &mut Writer| {
                w.nest(ORIGINAL, |w| w.bytes.extend_from_slice(original));
                if !id.is_empty() {
                    w.attribute(ID, id);
                }
            };
            let doing = || "delete a tracked connection".into();
            match self.socket.request(DELETE, flag(0), &header(*family), doing, fill) {
                Ok(()) => deleted += 1,
                // It ended by itself.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

/// `AF_UNSPEC` asks for the flows of all families.
fn header(family: u8) -> [u8; FAMILY_HEADER] {
    [family, 0, 0, 0]
}

fn parse(attributes: &[u8]) -> Option<Flow> {
    const STATUS: u16 = 3;
    const SEEN_REPLY: u32 = 2;
    let status = wire::attribute(attributes, STATUS).and_then(|bytes| bytes.try_into().ok());
    Some(Flow {
        original: parse_tuple(wire::attribute(attributes, ORIGINAL)?)?,
        reply: parse_tuple(wire::attribute(attributes, REPLY)?)?,
        answered: u32::from_be_bytes(status.unwrap_or_default()) & SEEN_REPLY != 0,
    })
}

/// Nothing for protocols without ports.
fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    const ADDRESSES: u16 = 1;
    const PROTOCOL: u16 = 2;
    let addresses = wire::attribute(bytes, ADDRESSES)?;
    let protocol = wire::attribute(bytes, PROTOCOL)?;
    // `CTA_IP_V4_*` are 1 and 2, `CTA_IP_V6_*` 3 and 4.
    let address = |v4: u16| {
        let bytes = wire::attribute(addresses, v4).or_else(|| wire::attribute(addresses, v4 + 2))?;
        parse_address(bytes)
    };
    let port = |kind| Some(u16::from_be_bytes(wire::attribute(protocol, kind)?.try_into().ok()?));
    Some(Tuple {
        protocol: *wire::attribute(protocol, 1)?.first()?,
        source: address(1)?,
        destination: address(2)?,
        source_port: port(2)?,
        destination_port: port(3)?,
    })
}
