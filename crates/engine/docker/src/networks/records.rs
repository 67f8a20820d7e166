//! What is kept of networks and of those who are connected: one JSON file for each, replaced atomically.

use super::pools::Pool;
use super::request::flag;
use crate::error::{DockerError, Result};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    pub id: String,
    pub name: String,
    pub driver: String,
    /// Nanoseconds since the epoch.
    pub created: i64,
    pub ipv4: bool,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ipam_driver: String,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub pools: Vec<Pool>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The interface on the host; empty where there is none.
    pub bridge: String,
    /// Bytes of the largest packet.
    pub mtu: u32,
}

impl Network {
    pub fn is_bridge(&self) -> bool {
        self.driver == "bridge"
    }

    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }

    /// Names are resolved, and addresses may be asked for.
    pub fn is_user_defined(&self) -> bool {
        !self.is_predefined()
    }

    pub fn pool(&self, v6: bool) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.is_v4() != v6)
    }

    pub fn subnet(&self, v6: bool) -> Option<IpNet> {
        self.pool(v6).map(|pool| pool.subnet)
    }

    fn has(&self, option: &str) -> bool {
        self.options.get(option).and_then(|value| flag(value)).unwrap_or(true)
    }

    /// Containers of the network reach each other.
    pub fn has_icc(&self) -> bool {
        self.has("com.docker.network.bridge.enable_icc")
    }

    pub fn masquerades(&self) -> bool {
        self.has("com.docker.network.bridge.enable_ip_masquerade")
    }
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of the host that leads to one of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub protocol: Protocol,
    /// Unspecified for all addresses of its family.
    pub host_address: IpAddr,
    pub host_port: u16,
    /// The container's address, which may be of the other family: then only the daemon's proxy leads there.
    pub target: IpAddr,
    pub port: u16,
}

impl Publication {
    pub(crate) fn is_v6(&self) -> bool {
        self.host_address.is_ipv6()
    }

    /// The kernel can lead packets there: both sides are of one family.
    pub(crate) fn is_translated(&self) -> bool {
        self.host_address.is_ipv6() == self.target.is_ipv6()
    }

    /// Both would listen for the same packets.
    pub(crate) fn collides(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.protocol == protocol
            && self.host_port == port
            && self.is_v6() == address.is_ipv6()
            && (self.host_address == address || self.host_address.is_unspecified() || address.is_unspecified())
    }
}

/// A container's connection to one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    pub network: String,
    pub endpoint_id: String,
    /// In the container.
    pub interface: String,
    /// On the host; empty where there is none.
    pub host_interface: String,
    pub mac: String,
    pub v4: Option<IpNet>,
    pub v6: Option<IpNet>,
    pub gateway_v4: Option<IpAddr>,
    pub gateway_v6: Option<IpAddr>,
    pub priority: i64,
    /// What the network's other containers call it.
    pub names: Vec<String>,
    /// What it calls some of them, as `NAME:ALIAS`.
    #[serde(default)]
    pub links: Vec<String>,
    /// Addresses besides those of the network.
    #[serde(default)]
    pub link_local: Vec<IpNet>,
    /// Settings of the kernel for the interface, as `net.ipv4.conf.IFNAME.forwarding=1`.
    #[serde(default)]
    pub sysctls: Vec<String>,
}

/// A container that runs, with its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub container: String,
    pub name: String,
    pub netns: PathBuf,
    pub joined: Vec<Joined>,
    pub published: Vec<Publication>,
    /// The network through which the ports lead.
    pub published_by: String,
    /// Servers that know the names outside; empty for those of the host.
    pub resolvers: Vec<IpAddr>,
    pub has_resolver: bool,
}

/// A folder of records.
#[derive(Debug)]
pub(crate) struct Records(PathBuf);

/// Larger files are not ours.
const MAX_BYTES: u64 = 16 << 20;

impl Records {
    pub fn open(path: PathBuf) -> Result<Self> {
        let made = std::fs::create_dir_all(&path);
        made.map_err(|e| DockerError::io(format_args!("create {}", path.display()), e))?;
        Ok(Self(path))
    }

    /// Ids are of our own making: letters and digits.
    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    pub fn save(&self, id: &str, record: &impl Serialize) -> Result<()> {
        let path = self.path(id);
        let write = || -> std::io::Result<()> {
            let new = path.with_extension("new");
            std::fs::write(&new, serde_json::to_vec(record)?)?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|e| DockerError::io(format_args!("save {}", path.display()), e))
    }

    /// Succeeds when it is not there.
    pub fn remove(&self, id: &str) -> Result<()> {
        let path = self.path(id);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(DockerError::io(format_args!("remove {}", path.display()), e))
            }
            _ => Ok(()),
        }
    }

    /// All that can be read; what cannot is told and left out.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let failed = |e| DockerError::io(format_args!("list {}", self.0.display()), e);
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|e| e == "json") {
                match read(&path) {
                    Some(record) => all.push(record),
                    None => tracing::warn!(path = %path.display(), "a record of networks cannot be read"),
                }
            }
        }
        Ok(all)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    if std::fs::metadata(path).ok()?.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
