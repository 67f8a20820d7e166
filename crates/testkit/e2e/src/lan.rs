//! A link that several machines are on: a bridge in a network namespace of its own.

use crate::host::{Host, ip};
use anyhow::Result;
use ipnet::Ipv4Net;
use pintle_netlink::{Netlink, lan, namespace};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The network of every link.
pub(crate) const NET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 77, 0), 24);

/// Removed when dropped; its hosts must be gone by then, or lose their link.
pub struct Lan {
    name: String,
    link: Mutex<lan::Lan>,
}

/// Where `ip` keeps a namespace of this name.
fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

impl Lan {
    pub fn new() -> Result<Self> {
        let name = format!("pintle-lan-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let space = namespace::open(&path_of(&name))?;
        let link = lan::Lan::create(Netlink::in_namespace(space.as_fd())?, "lan0", NET)?;
        Ok(Self { name, link: Mutex::new(link) })
    }

    fn link(&self) -> std::sync::MutexGuard<'_, lan::Lan> {
        self.link.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Connects the `eth0` of a host and gives it its address.
    pub(crate) fn connect(&self, host: &Host, number: u8) -> Result<()> {
        let space = namespace::open(&path_of(&host.name))?;
        Ok(self.link().connect(&port_of(host), space.as_fd(), number)?)
    }

    /// Cuts a host off from all others; it does not notice by its own link.
    pub fn cut(&self, host: &Host) -> Result<()> {
        Ok(self.link().cut(&port_of(host))?)
    }

    /// Connects it again.
    pub fn heal(&self, host: &Host) -> Result<()> {
        Ok(self.link().heal(&port_of(host))?)
    }
}

/// The name of the bridge's port: by the last part of the host's address.
fn port_of(host: &Host) -> String {
    format!("port-{}", host.address.rsplit('.').next().unwrap_or_default())
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            crate::suite::tell(&format!("cannot delete the namespace {}: {error:#}", self.name));
        }
    }
}
