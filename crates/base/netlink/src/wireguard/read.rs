//! Reads the kernel's description of a device, which comes in as many messages as it takes.

use super::{Device, Peer, PublicKey, number};
use crate::route::parse_address;
use crate::wire;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// Adds what one message says; nothing for one that cannot be read.
pub(super) fn device(device: &mut Device, attributes: &[u8]) -> Option<()> {
    for (kind, payload) in wire::attributes(attributes) {
        match kind {
            number::DEVICE_INDEX => device.index = wire::u32_at(payload, 0)?,
            number::DEVICE_NAME => device.name = wire::text(payload),
            number::DEVICE_PUBLIC_KEY => device.key = Some(key(payload)?),
            number::DEVICE_PORT => device.port = wire::u16_at(payload, 0)?,
            number::DEVICE_PEERS => {
                for (_, payload) in wire::attributes(payload) {
                    add(&mut device.peers, peer(payload)?);
                }
            }
            // The private key among them.
            _ => {}
        }
    }
    Some(())
}

/// A peer whose addresses did not fit goes on in the next message, with nothing but its key and further addresses.
fn add(peers: &mut Vec<Peer>, peer: Peer) {
    match peers.last_mut() {
        Some(last) if last.key == peer.key => last.allowed.extend(peer.allowed),
        _ => peers.push(peer),
    }
}

fn peer(attributes: &[u8]) -> Option<Peer> {
    let mut peer = Peer {
        key: key(wire::attribute(attributes, number::PEER_PUBLIC_KEY)?)?,
        endpoint: None,
        keepalive: 0,
        last_handshake: None,
        received_bytes: 0,
        sent_bytes: 0,
        allowed: Vec::new(),
    };
    for (kind, payload) in wire::attributes(attributes) {
        match kind {
            number::PEER_ENDPOINT => peer.endpoint = Some(socket_address(payload)?),
            number::PEER_KEEPALIVE => peer.keepalive = wire::u16_at(payload, 0)?,
            number::PEER_LAST_HANDSHAKE => peer.last_handshake = time(payload)?,
            number::PEER_RECEIVED => peer.received_bytes = u64_at(payload, 0)?,
            number::PEER_SENT => peer.sent_bytes = u64_at(payload, 0)?,
            number::PEER_ALLOWED => {
                for (_, payload) in wire::attributes(payload) {
                    peer.allowed.push(allowed(payload)?);
                }
            }
            _ => {}
        }
    }
    Some(peer)
}

fn key(payload: &[u8]) -> Option<PublicKey> {
    payload.try_into().ok().map(PublicKey)
}

fn allowed(attributes: &[u8]) -> Option<IpNet> {
    let address = parse_address(wire::attribute(attributes, number::ALLOWED_ADDRESS)?)?;
    let prefix = *wire::attribute(attributes, number::ALLOWED_PREFIX)?.first()?;
    IpNet::new(address, prefix).ok()
}

/// `struct __kernel_timespec`; zero is never.
fn time(payload: &[u8]) -> Option<Option<Duration>> {
    let seconds = u64_at(payload, 0)?;
    let nanoseconds = u32::try_from(u64_at(payload, 8)?).ok()?;
    Some((seconds != 0).then(|| Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds.into()))))
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(payload: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(wire::u16_at(payload, 0)?);
    let port = u16::from_be_bytes(payload.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => Some(SocketAddr::new(parse_address(payload.get(4..8)?)?, port)),
        libc::AF_INET6 => {
            let IpAddr::V6(address) = parse_address(payload.get(8..24)?)? else { return None };
            let flow = u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?);
            Some(SocketAddrV6::new(address, port, flow, wire::u32_at(payload, 24)?).into())
        }
        _ => None,
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
