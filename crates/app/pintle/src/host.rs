//! What a server needs of its machine, checked and set at start.

use anyhow::{Context, Result, ensure};
use pintle_netlink::Netlink;
use std::net::IpAddr;
use std::path::Path;

/// Kernel settings and the values that pods need.
const SYSCTLS: [(&str, &str); 3] = [
    ("net/ipv4/ip_forward", "1"),
    // Packets of pods come in on the bridge with addresses that the host routes elsewhere.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

/// Fails early, and says what to do, when this machine cannot be a node.
pub(crate) fn prepare() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "pintle server makes containers and networks: run it as root (sudo)");
    ensure!(Path::new("/sys/fs/cgroup").exists(), "/sys/fs/cgroup is missing: mount the cgroup file system there");
    for (name, value) in SYSCTLS {
        let path = Path::new("/proc/sys").join(name);
        let current = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        if current.trim() != value {
            std::fs::write(&path, value).with_context(|| format!("set {} to {value}", path.display()))?;
        }
    }
    Ok(())
}

/// Gives a link one more address of its own; it may have it already.
pub(crate) fn add_address(link: &str, address: IpAddr) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let found = netlink.link(link)?.with_context(|| format!("the link {link} is gone"))?;
    if netlink.addresses()?.iter().any(|a| a.link == found.index && a.address.addr() == address) {
        return Ok(());
    }
    netlink.add_address(found.index, address.into()).with_context(|| format!("add {address} to {link}"))
}
