//! The bridge of a node and what hangs on it.

use crate::Error;
use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// How a node's bridge is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// The addresses of this node's sandboxes; the first one is the bridge's own and their gateway.
    pub pod_subnet: Ipv4Net,
    /// All ranges that sandboxes reach with their own address (the whole cluster's pods); the rest is masqueraded.
    pub cluster_subnets: Vec<IpNet>,
    /// Ranges that exist only in address translation (services): never masqueraded here, and routed to the bridge so
    /// that the host itself has a route, even where it has no default route.
    pub translated_subnets: Vec<IpNet>,
    /// Where addresses in use are written down; made if missing.
    pub state_dir: PathBuf,
    /// The largest packet of the bridge and its interfaces in bytes.
    pub mtu: u32,
}

/// The transport protocol of a host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of the host that leads to a port of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// One address of the host; nothing is all of them.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub sandbox_port: u16,
}

/// What a sandbox was given.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// The interface's name inside the sandbox: `eth0`.
    pub interface: String,
    /// Its addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    pub gateway: IpAddr,
    /// The interface's hardware address, such as `0a:58:0a:2a:00:05`.
    pub mac: String,
    /// The other end's name on the host.
    pub host_interface: String,
}

/// How the network is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub bridge: String,
    pub subnet: Ipv4Net,
    pub gateway: IpAddr,
    pub addresses_used: usize,
    pub addresses_total: usize,
}

/// The bridge network of a node. Cheap to share behind an `Arc`; calls may come from several threads.
#[derive(Debug)]
pub struct BridgeNetwork {
    config: Config,
}

impl BridgeNetwork {
    /// Makes the bridge and its rules, or adopts those of an earlier run, and reads the addresses in use.
    pub fn open(config: Config) -> Result<Self, Error> {
        Ok(Self { config })
    }

    /// Releases everything that belongs to sandboxes other than `live`: called once at start.
    pub fn retain(&self, _live: &[String]) -> Result<(), Error> {
        Err(Error::NotSupported("network clean-up"))
    }

    /// Gives the network namespace at `namespace` an interface, or returns what it was given before.
    pub fn setup(&self, _sandbox_id: &str, _namespace: &Path, _host_ports: &[HostPort]) -> Result<Attachment, Error> {
        Err(Error::NotSupported("network set-up"))
    }

    /// Takes everything back that `setup` gave; nothing to do is success.
    pub fn teardown(&self, _sandbox_id: &str) -> Result<(), Error> {
        Err(Error::NotSupported("network teardown"))
    }

    /// What a sandbox has, if it has been set up.
    pub fn attachment(&self, _sandbox_id: &str) -> Option<Attachment> {
        None
    }

    pub fn status(&self) -> Result<Status, Error> {
        Err(Error::NotSupported("network status")).inspect_err(|_| tracing::debug!(bridge = self.config.bridge))
    }

    /// Removes the bridge, every interface on it, every rule and every record: for `reset`.
    pub fn remove_all(&self) -> Result<(), Error> {
        Err(Error::NotSupported("network removal"))
    }
}
