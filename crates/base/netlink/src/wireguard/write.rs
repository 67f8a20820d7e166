//! Writes changes of a device as attributes, in parts that each fit a message.

use super::{DeviceChange, MESSAGE_BYTES, PeerChange, PublicKey, number};
use crate::route::AddressBytes;
use crate::wire::Writer;
use ipnet::IpNet;
use std::net::SocketAddr;

/// The most that a message has besides peers: headers, the name of the link, a key, flags, a port, the list itself.
const DEVICE_BYTES: usize = 16 + 4 + 20 + 36 + 8 + 8 + 4;
/// The most that a peer has besides addresses: itself, its key, flags, an endpoint, an interval, the list itself.
const PEER_BYTES: usize = 4 + 36 + 8 + 32 + 8 + 4;
/// The most that a range of addresses has.
const ALLOWED_BYTES: usize = 4 + 8 + 20 + 8;

/// What one message says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) change: &'a PeerChange,
    /// The first part says everything but the addresses that did not fit.
    pub(super) begins: bool,
    pub(super) allowed: &'a [IpNet],
}

impl PeerChange {
    fn key(&self) -> &PublicKey {
        match self {
            Self::Set(settings) => &settings.key,
            Self::Remove(key) => key,
        }
    }

    fn allowed(&self) -> &[IpNet] {
        match self {
            Self::Set(settings) => &settings.allowed,
            Self::Remove(_) => &[],
        }
    }
}

/// What each message has of the peers; one message at least.
pub(super) fn split(peers: &[PeerChange]) -> Vec<Vec<Part<'_>>> {
    let (mut messages, mut message) = (Vec::new(), Vec::new());
    let mut room = MESSAGE_BYTES - DEVICE_BYTES;
    for change in peers {
        let (mut left, mut begins) = (change.allowed(), true);
        while begins || !left.is_empty() {
            if room < PEER_BYTES + ALLOWED_BYTES {
                messages.push(std::mem::take(&mut message));
                room = MESSAGE_BYTES - DEVICE_BYTES;
            }
            room -= PEER_BYTES;
            let (allowed, later) = left.split_at(left.len().min(room / ALLOWED_BYTES));
            room -= allowed.len() * ALLOWED_BYTES;
            message.push(Part { change, begins, allowed });
            (left, begins) = (later, false);
        }
    }
    messages.push(message);
    messages
}

/// Writes one message: `change` is what the first one says of the device itself.
pub(super) fn device(w: &mut Writer, name: &str, change: Option<&DeviceChange<'_>>, peers: &[Part<'_>]) {
    w.string(number::DEVICE_NAME, name);
    if let Some(change) = change {
        if let Some(key) = change.private_key {
            w.attribute(number::DEVICE_PRIVATE_KEY, &key.0);
        }
        if let Some(port) = change.port {
            w.attribute(number::DEVICE_PORT, &port.to_ne_bytes());
        }
        if change.replace_peers {
            w.u32(number::DEVICE_FLAGS, number::DEVICE_REPLACE_PEERS);
        }
    }
    if !peers.is_empty() {
        // Elements of lists have no type.
        w.nest(number::DEVICE_PEERS, |w| peers.iter().for_each(|part| w.nest(0, |w| peer(w, part))));
    }
}

fn peer(w: &mut Writer, part: &Part<'_>) {
    w.attribute(number::PEER_PUBLIC_KEY, &part.change.key().0);
    match part.change {
        PeerChange::Remove(_) => w.u32(number::PEER_FLAGS, number::PEER_REMOVE),
        PeerChange::Set(settings) if part.begins => {
            w.u32(number::PEER_FLAGS, number::PEER_REPLACE_ALLOWED);
            if let Some(endpoint) = settings.endpoint {
                let (bytes, length) = socket_address(endpoint);
                w.attribute(number::PEER_ENDPOINT, &bytes[..length]);
            }
            if let Some(seconds) = settings.keepalive {
                w.attribute(number::PEER_KEEPALIVE, &seconds.to_ne_bytes());
            }
        }
        PeerChange::Set(_) => {}
    }
    if !part.allowed.is_empty() {
        w.nest(number::PEER_ALLOWED, |w| part.allowed.iter().for_each(|net| w.nest(0, |w| allowed(w, *net))));
    }
}

fn allowed(w: &mut Writer, net: IpNet) {
    let family = if net.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    w.attribute(number::ALLOWED_FAMILY, &(family as u16).to_ne_bytes());
    w.attribute(number::ALLOWED_ADDRESS, AddressBytes::of(net.network()).as_slice());
    w.u8(number::ALLOWED_PREFIX, net.prefix_len());
}

/// `struct sockaddr_in` or `struct sockaddr_in6`, and how many bytes it has.
fn socket_address(endpoint: SocketAddr) -> ([u8; 28], usize) {
    let mut bytes = [0; 28];
    bytes[2..4].copy_from_slice(&endpoint.port().to_be_bytes());
    match endpoint {
        SocketAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v4.ip().octets());
            (bytes, 16)
        }
        SocketAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (bytes, 28)
        }
    }
}
