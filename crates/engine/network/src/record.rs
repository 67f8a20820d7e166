//! What each sandbox was given, written down so that a restart knows it: one small file for each.
//!
//! The files need no `fsync`: namespaces and interfaces do not survive a power failure either.

use crate::{Error, Result};
use pintle_netlink::nft::Family;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// No record of ours is larger: a sandbox's ports are limited by the number of ports.
const MAX_RECORD_BYTES: u64 = 16 << 20;
/// The file that holds the addresses given last, a line each: no record's, since theirs end in `.json`.
const LAST: &str = "last";

/// The transport protocol of a host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Its number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// A port of the host that leads to a port of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// One address of the host; the unspecified one is all of its family, nothing is all.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub sandbox_port: u16,
}

impl HostPort {
    /// The one address that it listens on, if it is not all.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host_ip.filter(|address| !address.is_unspecified())
    }

    /// Whether it is for packets of this family.
    pub(crate) fn is_of(&self, family: Family) -> bool {
        self.host_ip.is_none_or(|address| family.has(address))
    }

    /// Whether both want the same packets.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && [Family::Ip, Family::Ip6].into_iter().any(|family| self.is_of(family) && other.is_of(family))
            && match (self.address(), other.address()) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
    }
}

/// What a sandbox was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// One sandbox's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) attachment: Attachment,
    pub(crate) host_ports: Vec<HostPort>,
}

impl Record {
    /// The sandbox's address of this family.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.attachment.addresses.iter().copied().find(|address| family.has(*address))
    }

    /// Its ports that are published for this family, with where they lead.
    pub(crate) fn ports(&self, family: Family) -> impl Iterator<Item = (&HostPort, IpAddr)> {
        let address = self.address(family);
        let ports = self.host_ports.iter().filter(move |port| port.is_of(family));
        ports.filter_map(move |port| Some((port, address?)))
    }
}

/// The records of all sandboxes, in memory and in a folder.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
    by_id: BTreeMap<String, Record>,
    last: Vec<IpAddr>,
}

impl Records {
    /// Reads what an earlier run wrote; a file that cannot be understood is removed, as nothing could use it.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let failed = |doing| move |source| Error::File { doing, path: folder.into(), source };
        fs::create_dir_all(folder).map_err(failed("make"))?;
        let (mut by_id, mut last) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(failed("list"))? {
            let path = entry.map_err(failed("list"))?.path();
            if path.ends_with(LAST) {
                let text = fs::read_to_string(&path).unwrap_or_default();
                last = text.lines().filter_map(|line| line.parse().ok()).collect();
                continue;
            }
            match read(&path) {
                Some((id, record)) => {
                    by_id.insert(id, record);
                }
                None => {
                    tracing::warn!(path = %path.display(), "removing a network record that cannot be read");
                    fs::remove_file(&path).map_err(|source| Error::File { doing: "remove", path, source })?;
                }
            }
        }
        Ok(Self { folder: folder.into(), by_id, last })
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Record> {
        self.by_id.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Record)> + Clone {
        self.by_id.iter()
    }

    /// The addresses that were given last, in an earlier run too.
    pub(crate) fn last(&self) -> &[IpAddr] {
        &self.last
    }

    /// Writes a record; the file appears whole or not at all.
    pub(crate) fn insert(&mut self, id: &str, record: Record) -> Result<()> {
        let path = self.path(id);
        let draft = self.folder.join(format!(".{id}"));
        let write = || {
            fs::write(&draft, serde_json::to_vec(&record)?)?;
            fs::rename(&draft, &path)?;
            let last: Vec<String> = record.attachment.addresses.iter().map(IpAddr::to_string).collect();
            fs::write(self.folder.join(LAST), last.join("\n"))
        };
        write().map_err(|source| Error::File { doing: "write", path: path.clone(), source })?;
        self.last.clone_from(&record.attachment.addresses);
        self.by_id.insert(id.to_owned(), record);
        Ok(())
    }

    /// Forgets a record, the file first.
    pub(crate) fn remove(&mut self, id: &str) -> Result<()> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::File { doing: "remove", path, source });
            }
            _ => {}
        }
        self.by_id.remove(id);
        Ok(())
    }

    /// Removes the folder too.
    pub(crate) fn remove_all(&mut self) -> Result<()> {
        self.by_id.clear();
        match fs::remove_dir_all(&self.folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { doing: "remove", path: self.folder.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

/// Ids become file names, so they must not lead elsewhere.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let fits = (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits { Ok(()) } else { Err(Error::BadSandboxId { id: id.chars().take(200).collect() }) }
}

fn read(path: &Path) -> Option<(String, Record)> {
    let id = path.file_name()?.to_str()?.strip_suffix(".json")?;
    check_id(id).ok()?;
    if fs::metadata(path).ok()?.len() > MAX_RECORD_BYTES {
        return None;
    }
    Some((id.to_owned(), serde_json::from_slice(&fs::read(path).ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_file_names() {
        for (id, fits) in [("a-B_9.x", true), ("", false), (".x", false), ("a/b", false), ("..", false)] {
            assert_eq!(check_id(id).is_ok(), fits, "{id}");
        }
        assert!(check_id(&"a".repeat(129)).is_err());
    }

    #[test]
    fn ports_collide_when_a_packet_could_be_for_both() {
        let port = |ip: Option<&str>, protocol| HostPort {
            protocol,
            host_ip: ip.map(|ip| ip.parse().expect("address")),
            host_port: 80,
            sandbox_port: 8080,
        };
        let tcp = |ip| port(ip, Protocol::Tcp);
        for (a, b, collides) in [
            (tcp(None), tcp(None), true),
            (tcp(Some("0.0.0.0")), tcp(Some("10.0.0.1")), true),
            (tcp(Some("10.0.0.2")), tcp(Some("10.0.0.1")), false),
            (tcp(None), port(None, Protocol::Udp), false),
            (tcp(Some("::")), tcp(Some("0.0.0.0")), false),
            (tcp(Some("::")), tcp(Some("fd00::1")), true),
            (tcp(None), tcp(Some("::")), true),
        ] {
            assert_eq!(a.collides(&b), collides, "{a:?} {b:?}");
        }
    }
}
