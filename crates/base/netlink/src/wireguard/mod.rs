//! WireGuard: encrypted links to other hosts, told by generic netlink which of them has which addresses.
//!
//! The kernel makes the public key of a device from its private one, so nothing here computes on curves.

mod read;
mod write;

use crate::generic::{self, Generic};
use crate::route::{INFO_KIND, Netlink};
use crate::socket::Socket;
use crate::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use std::time::Duration;

/// The name of the protocol, its version and its commands (linux/wireguard.h).
const FAMILY: &str = "wireguard";
const VERSION: u8 = 1;
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
/// The most that one message has: a page. More goes into further messages.
const MESSAGE_BYTES: usize = 4096;

/// Numbers of attributes and flags (linux/wireguard.h).
mod number {
    pub(super) const DEVICE_INDEX: u16 = 1;
    pub(super) const DEVICE_NAME: u16 = 2;
    pub(super) const DEVICE_PRIVATE_KEY: u16 = 3;
    pub(super) const DEVICE_PUBLIC_KEY: u16 = 4;
    pub(super) const DEVICE_FLAGS: u16 = 5;
    pub(super) const DEVICE_PORT: u16 = 6;
    pub(super) const DEVICE_PEERS: u16 = 8;
    pub(super) const DEVICE_REPLACE_PEERS: u32 = 1;

    pub(super) const PEER_PUBLIC_KEY: u16 = 1;
    pub(super) const PEER_FLAGS: u16 = 3;
    pub(super) const PEER_ENDPOINT: u16 = 4;
    pub(super) const PEER_KEEPALIVE: u16 = 5;
    pub(super) const PEER_LAST_HANDSHAKE: u16 = 6;
    pub(super) const PEER_RECEIVED: u16 = 7;
    pub(super) const PEER_SENT: u16 = 8;
    pub(super) const PEER_ALLOWED: u16 = 9;
    pub(super) const PEER_REMOVE: u32 = 1;
    pub(super) const PEER_REPLACE_ALLOWED: u32 = 2;

    pub(super) const ALLOWED_FAMILY: u16 = 1;
    pub(super) const ALLOWED_ADDRESS: u16 = 2;
    pub(super) const ALLOWED_PREFIX: u16 = 3;
}

/// What a host is known by. Its text is base64, as that of `wg`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// What a device proves with who it is: any 32 random bytes, which the kernel fits to the curve.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(pub [u8; 32]);

/// A text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a WireGuard key is 44 characters of base64, which stand for 32 bytes")]
pub struct BadKey;

/// What to change about a device; what is not said stays.
#[derive(Clone, Debug, Default)]
pub struct DeviceChange<'a> {
    pub private_key: Option<&'a PrivateKey>,
    /// The UDP port that it listens on.
    pub port: Option<u16>,
    /// Takes all peers away before `peers` are told.
    pub replace_peers: bool,
    pub peers: &'a [PeerChange],
}

/// What to change about one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Makes it, or makes it this.
    Set(PeerSettings),
    /// Takes it away; one that is not there is success.
    Remove(PublicKey),
}

/// A peer to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    pub key: PublicKey,
    /// Where it listens; nothing leaves what is known.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between packets that keep a way through firewalls open; 0 is never, nothing leaves it.
    pub keepalive: Option<u16>,
    /// The addresses that are behind it, all of them. One that another peer has moves here.
    pub allowed: Vec<IpNet>,
}

/// A device as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub index: u32,
    pub name: String,
    /// Nothing before it has a private one.
    pub key: Option<PublicKey>,
    pub port: u16,
    pub peers: Vec<Peer>,
}

/// A peer as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub key: PublicKey,
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 is never.
    pub keepalive: u16,
    /// Of the last one, since 1970; nothing when there was none.
    pub last_handshake: Option<Duration>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub allowed: Vec<IpNet>,
}

/// Speaks to WireGuard in the network namespace where it was opened.
#[derive(Debug)]
pub struct WireGuard {
    generic: Generic,
}

impl WireGuard {
    /// Opens a socket in the caller's network namespace.
    ///
    /// # Errors
    /// [`Error::is_not_found`] where the kernel has no WireGuard.
    pub fn open() -> Result<Self> {
        Ok(Self { generic: Generic::open(Socket::generic()?, FAMILY)? })
    }

    /// Opens a socket in another network namespace.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn in_namespace(namespace: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { generic: Generic::open(Socket::inside(namespace, Socket::generic)?, FAMILY)? })
    }

    /// Changes a device, in as many messages as it takes.
    ///
    /// # Errors
    /// When the kernel refuses a message: those before it have been done.
    pub fn set(&mut self, device: &str, change: &DeviceChange<'_>) -> Result<()> {
        for (at, parts) in write::split(change.peers).iter().enumerate() {
            let doing = || format!("configure the WireGuard link {device}");
            let fill = |w: &mut crate::wire::Writer| write::device(w, device, (at == 0).then_some(change), parts);
            self.generic.request(generic::header(SET_DEVICE, VERSION), doing, fill)?;
        }
        Ok(())
    }

    /// What a device is, with its peers. The kernel's answer has its private key, which is not kept.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no link of this name.
    pub fn get(&mut self, device: &str) -> Result<Device> {
        let mut found = Device::default();
        let doing = format!("look at the WireGuard link {device}");
        let header = generic::header(GET_DEVICE, VERSION);
        let ask = |w: &mut crate::wire::Writer| w.string(number::DEVICE_NAME, device);
        let mut good = true;
        self.generic.dump(header, &doing, ask, |attributes| good &= read::device(&mut found, attributes).is_some())?;
        if good { Ok(found) } else { Err(Error::Malformed { doing, what: "cannot be read" }) }
    }
}

impl Netlink {
    /// Makes a WireGuard link and raises it; it listens on a port that the kernel chooses until it is told one.
    ///
    /// # Errors
    /// Of code `EOPNOTSUPP` where the kernel has no WireGuard.
    pub fn add_wireguard(&mut self, name: &str, mtu: u32, group: u32) -> Result<()> {
        self.add_link(name, "wireguard", |w| {
            w.u32(libc::IFLA_MTU, mtu);
            w.u32(libc::IFLA_GROUP, group);
            w.nest(libc::IFLA_LINKINFO, |w| w.attribute(INFO_KIND, b"wireguard"));
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Never shows the key.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

fn decode(text: &str) -> std::result::Result<[u8; 32], BadKey> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(BadKey)
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> std::result::Result<Self, BadKey> {
        decode(text).map(Self)
    }
}

impl FromStr for PrivateKey {
    type Err = BadKey;

    fn from_str(text: &str) -> std::result::Result<Self, BadKey> {
        decode(text).map(Self)
    }
}

impl PrivateKey {
    /// The text that `wg` reads. It is a secret.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0)
    }
}

#[cfg(test)]
mod tests;
