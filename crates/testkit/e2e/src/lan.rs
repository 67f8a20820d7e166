//! A link that several machines are on: a bridge in a network namespace of its own.

use crate::host::{Host, ip};
use anyhow::Result;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Removed when dropped; its hosts must be gone by then, or lose their link.
pub struct Lan {
    name: String,
}

impl Lan {
    pub fn new() -> Result<Self> {
        let name = format!("pintle-lan-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let lan = Self { name };
        lan.inside("link set lo up")?;
        lan.inside("link add lan0 type bridge")?;
        lan.inside("link set lan0 up")?;
        lan.inside("address add 192.168.77.1/24 dev lan0")?;
        Ok(lan)
    }

    fn inside(&self, words: &str) -> Result<String> {
        ip(&[&["-n", &self.name][..], &words.split(' ').collect::<Vec<_>>()].concat())
    }

    /// Connects the `eth0` of a host.
    pub(crate) fn connect(&self, host: &Host) -> Result<()> {
        let port = port_of(host);
        self.inside(&format!("link add {port} type veth peer name eth0 netns {}", host.name))?;
        self.inside(&format!("link set {port} master lan0 up"))?;
        Ok(())
    }

    /// Cuts a host off from all others; it does not notice by its own link.
    pub fn cut(&self, host: &Host) -> Result<()> {
        self.inside(&format!("link set {} nomaster", port_of(host))).map(drop)
    }

    /// Connects it again.
    pub fn heal(&self, host: &Host) -> Result<()> {
        self.inside(&format!("link set {} master lan0", port_of(host))).map(drop)
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
