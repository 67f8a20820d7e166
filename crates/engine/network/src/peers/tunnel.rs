//! WireGuard between nodes: this node's key, its link, and the other nodes as peers of it.
//!
//! The key is made once and stays in its file, which only root reads; the kernel tells the public one. A node is a peer
//! by its key, and the ranges of its sandboxes are what the kernel lets come from it and sends to it.

use super::{Backend, sandbox_mtu};
use crate::bridge::GROUP;
use crate::{Error, Result};
use ipnet::IpNet;
use pintle_netlink::wireguard::{DeviceChange, PeerChange, PeerSettings, PrivateKey, PublicKey, WireGuard};
use pintle_netlink::{LinkChange, Netlink, forgive_missing};
use rand::TryRngCore;
use rand::rngs::OsRng;
use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More than a key's text has, less than what anybody would put there by mistake.
const MAX_KEY_FILE: u64 = 4096;

/// What a node's end of the tunnels is made from.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// As [`super::PeersConfig::device_prefix`].
    pub device_prefix: String,
    /// Where the private key is kept; made when it is missing. Its folder must exist.
    pub key_file: PathBuf,
    /// The UDP port that other nodes send to.
    pub port: u16,
    /// This node's address, which other nodes send to.
    pub node: IpAddr,
}

/// A node's end of its tunnels, as other nodes need to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    pub key: PublicKey,
    pub endpoint: SocketAddr,
}

impl TunnelEnd {
    /// Makes or adopts this node's WireGuard link, which listens from then on, and its key. Peers of an earlier run
    /// stay. Blocks for some milliseconds, and for longer while the kernel loads its module.
    ///
    /// # Errors
    /// [`Error::NoWireguard`] where the kernel has none; when the key cannot be read or written, or when the port is
    /// somebody else's.
    pub fn open(config: &TunnelConfig) -> Result<Self> {
        let device = device_name(&config.device_prefix);
        raise_link(&device, sandbox_mtu(Backend::Wireguard, config.node)?)?;
        let mut wireguard = socket(&device)?;
        let key = private_key(&config.key_file)?;
        let change = DeviceChange { private_key: Some(&key), port: Some(config.port), ..DeviceChange::default() };
        let port = config.port;
        wireguard.set(&device, &change).map_err(|source| Error::TunnelPort { device: device.clone(), port, source })?;
        let public = wireguard.get(&device)?.key;
        let key = public.ok_or_else(|| Error::Config(format!("the link {device} lost its key while it was set up")))?;
        Ok(Self { key, endpoint: SocketAddr::new(config.node, port) })
    }
}

/// The WireGuard link of these devices.
pub(super) fn device_name(prefix: &str) -> String {
    format!("{prefix}-wg")
}

/// Makes the link or goes on with the one that is there.
fn raise_link(device: &str, mtu: u32) -> Result<()> {
    let mut netlink = Netlink::open()?;
    match netlink.link(device)? {
        Some(link) if link.kind == "wireguard" => {
            let change = LinkChange { up: Some(true), mtu: Some(mtu), ..LinkChange::default() };
            return Ok(netlink.set_link(link.index, &change)?);
        }
        // Not ours at all, under a name that is.
        Some(_) => forgive_missing(netlink.delete_link_named(device))?,
        None => {}
    }
    netlink.add_wireguard(device, mtu, GROUP).map_err(|source| match source.is_unsupported() {
        true => Error::NoWireguard { device: device.into(), kernel: kernel_release(), source },
        false => source.into(),
    })
}

fn socket(device: &str) -> Result<WireGuard> {
    WireGuard::open().map_err(|source| match source.is_not_found() {
        true => Error::NoWireguard { device: device.into(), kernel: kernel_release(), source },
        false => source.into(),
    })
}

/// Only people read it: nothing depends on it.
fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The key in its file, which is made with mode 0600 when there is none.
fn private_key(path: &Path) -> Result<PrivateKey> {
    let failed = |doing| move |source| Error::File { doing, path: path.into(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make_key(path).map_err(failed("write")),
        Err(error) => return Err(failed("read")(error)),
    };
    let mut text = String::new();
    file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed("read"))?;
    text.trim().parse().map_err(|error| {
        Error::Config(format!(
            "{}: {error}; remove the file and start again, and this node gets a new key",
            path.display()
        ))
    })
}

/// The file appears whole or not at all: a second key would be another node to all others.
fn make_key(path: &Path) -> io::Result<PrivateKey> {
    let mut key = PrivateKey([0; 32]);
    OsRng.try_fill_bytes(&mut key.0).map_err(io::Error::other)?;
    let draft = path.with_extension("new");
    // Of an earlier attempt, whose mode may be another.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", key.to_text())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(key)
}

/// The peers of the link.
#[derive(Debug)]
pub(super) struct Tunnels {
    device: String,
    wireguard: WireGuard,
}

impl Tunnels {
    /// Of a link that [`TunnelEnd::open`] has made.
    pub(super) fn open(device: String) -> Result<Self> {
        Ok(Self { wireguard: socket(&device)?, device })
    }

    /// Makes a node a peer with these ranges and no others.
    pub(super) fn set(&mut self, end: TunnelEnd, subnets: Vec<IpNet>) -> Result<()> {
        let TunnelEnd { key, endpoint } = end;
        self.change(&[PeerChange::Set(PeerSettings {
            key,
            endpoint: Some(endpoint),
            keepalive: None,
            allowed: subnets,
        })])
    }

    pub(super) fn remove(&mut self, key: PublicKey) -> Result<()> {
        self.change(&[PeerChange::Remove(key)])
    }

    /// Takes away all others.
    pub(super) fn retain(&mut self, wanted: &HashSet<PublicKey>) -> Result<()> {
        let peers = self.wireguard.get(&self.device)?.peers;
        let stale = peers.iter().map(|peer| peer.key).filter(|key| !wanted.contains(key));
        let changes: Vec<PeerChange> = stale.map(PeerChange::Remove).collect();
        if changes.is_empty() { Ok(()) } else { self.change(&changes) }
    }

    fn change(&mut self, peers: &[PeerChange]) -> Result<()> {
        Ok(self.wireguard.set(&self.device, &DeviceChange { peers, ..DeviceChange::default() })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_only_root_reads_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("wireguard.key");
        let key = private_key(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(private_key(&path).expect("read"), key);
        assert_eq!(fs::read_to_string(&path).expect("text").len(), 45, "what `wg genkey` prints");
        let other = private_key(&folder.path().join("other.key")).expect("made");
        assert_ne!(other, key);
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 2, "no draft is left");
    }

    #[test]
    fn a_file_that_has_no_key_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("wireguard.key");
        fs::write(&path, "not a key").expect("write");
        let error = private_key(&path).expect_err("no key").to_string();
        assert!(error.contains("wireguard.key: a WireGuard key is 44 characters of base64"), "{error}");
        assert!(error.contains("remove the file"), "{error}");
    }
}
