//! A node of a cluster on one machine: network, mount and UTS namespaces, directories and cgroups of its own.
//!
//! Its network is pinned where `ip netns` looks. Its mounts belong to the processes in it and go with them: every
//! command gets a new copy of this machine's mounts, but for the one that resets a node, which gets the node's own.

use super::plan::API_PORT;
use crate::node::EVICTION_ON_DESKS;
use crate::presence;
use anyhow::{Context, Result, bail};
use pintle_linux::mount::{self, Propagation};
use pintle_linux::process::{self, namespace as kind};
use pintle_netlink::namespace;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The name servers behind the one that systemd-resolved has on this machine's loopback.
const RESOLV_CONF_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// How long processes may take to end after they were killed.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    /// From 0; its place on the link.
    pub(super) number: u8,
    pub(super) address: Ipv4Addr,
    pub(super) directory: PathBuf,
    /// The cluster's, which the first node's server writes.
    pub(super) kubeconfig: PathBuf,
}

impl Machine {
    /// The name that `ip netns` knows its network by.
    pub(super) fn net_name(&self) -> String {
        format!("pintle-{}", self.name)
    }

    pub(super) fn net_path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.net_name())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The Docker socket, which this machine reaches, too.
    pub(super) fn socket(&self) -> PathBuf {
        self.path("run/docker.sock")
    }

    fn cgroup(&self) -> String {
        format!("/pintle-dev-{}", self.name)
    }

    pub(super) fn is_running(&self) -> bool {
        presence::find(&self.path("run")).is_some()
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).to_string_lossy().into_owned();
        let mut pairs = vec![
            ("--data-dir", path("data")),
            ("--run-dir", path("run")),
            ("--log-dir", path("logs")),
            ("--node-name", self.name.clone()),
            ("--node-ip", self.address.to_string()),
            ("--cgroup-root", self.cgroup()),
            ("--eviction-hard", EVICTION_ON_DESKS.to_owned()),
        ];
        if self.number == 0 {
            pairs.push(("--write-kubeconfig", self.kubeconfig.to_string_lossy().into_owned()));
            pairs.push(("--https-port", API_PORT.to_string()));
            // What is written into the kubeconfig is reached from outside of the node, too.
            pairs.push(("--bind-address", self.address.to_string()));
        }
        pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// Sets up the cluster; returns what `pintle init` printed.
    pub(super) fn init(&self) -> Result<String> {
        self.pintle(&[&["init".to_owned()][..], &self.flags()].concat())
    }

    /// Joins it; `command` is what follows `pintle join`.
    pub(super) fn join(&self, command: &str) -> Result<()> {
        let words = command.split_whitespace().map(str::to_owned);
        let words: Vec<String> = std::iter::once("join".to_owned()).chain(words).chain(self.flags()).collect();
        self.pintle(&words).map(drop)
    }

    /// Runs this program in the node to its end.
    fn pintle(&self, arguments: &[String]) -> Result<String> {
        std::fs::create_dir_all(&self.directory).with_context(|| format!("make {}", self.directory.display()))?;
        let output = self.run(arguments, None)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: pintle {}: {}", self.name, arguments.first().map_or("", |word| word), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same with the mounts of a process, or with a copy of this machine's.
    fn run(&self, arguments: &[String], mounts: Option<&File>) -> Result<Output> {
        let program = std::env::current_exe().context("find this program")?;
        let net = namespace::open(&self.net_path())?;
        // Namespaces belong to threads, and children begin in those of the thread that starts them.
        namespace::enter(net.as_fd(), || -> Result<Output> {
            process::unshare(kind::MOUNT | kind::UTS)?;
            match mounts {
                Some(mounts) => process::enter(mounts.as_fd(), kind::MOUNT)?,
                None => own_mounts()?,
            }
            rustix::system::sethostname(self.name.as_bytes()).context("name the node")?;
            let mut command = Command::new(program);
            // What the terminal sends to this command is not meant for nodes.
            command.args(arguments).stdin(Stdio::null()).env_remove("PINTLE_CONFIG").env_remove("KUBECONFIG");
            command.output().with_context(|| format!("start pintle in {}", self.name))
        })?
    }

    /// Resets the node and takes it away. What an orderly reset could not end is killed.
    pub(super) fn remove(&self) -> Result<()> {
        if self.path("data/settings.yaml").exists() && self.net_path().exists() {
            let arguments = ["reset", "--yes", "--data-dir"].map(str::to_owned);
            let arguments = [&arguments[..], &[self.path("data").to_string_lossy().into_owned()]].concat();
            let mounts = self.mounts();
            let output = self.run(&arguments, mounts.as_ref())?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                tracing::debug!(node = self.name, said = said.trim(), "a node could not be reset");
            }
        }
        let cgroups = pintle_linux::cgroup::Cgroups::detect()?;
        if cgroups.exists(&self.cgroup()) {
            cgroups.kill_all(&self.cgroup(), PATIENCE)?;
            cgroups.remove(&self.cgroup())?;
        }
        self.kill_all()?;
        namespace::delete(&self.net_path())?;
        match std::fs::remove_dir_all(&self.directory) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", self.directory.display()))
            }
            _ => Ok(()),
        }
    }

    /// The mounts of the server or agent.
    fn mounts(&self) -> Option<File> {
        let running = presence::find(&self.path("run"))?;
        File::open(format!("/proc/{}/ns/mnt", running.pid.as_raw_nonzero())).ok()
    }

    /// Kills what is still in the node's network.
    fn kill_all(&self) -> Result<()> {
        // A file that pins nothing is not a namespace: it has another device.
        let Ok(net) = std::fs::metadata(self.net_path()) else { return Ok(()) };
        for entry in std::fs::read_dir("/proc").context("list processes")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            let of = std::fs::metadata(format!("/proc/{}/ns/net", pid.as_raw_nonzero()));
            if of.is_ok_and(|found| (found.dev(), found.ino()) == (net.dev(), net.ino())) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        Ok(())
    }
}

/// Lets mounts of this thread's new namespace stay in it, and shows it name servers that it can reach.
fn own_mounts() -> Result<()> {
    mount::propagate_all(Propagation::Slave)?;
    // Volumes that spread mounts spread them within the node.
    mount::propagate_all(Propagation::Shared)?;
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    if asks_loopback_only(&text) && Path::new(RESOLV_CONF_UPSTREAM).exists() {
        rustix::mount::mount_bind(RESOLV_CONF_UPSTREAM, RESOLV_CONF).context("show name servers to the node")?;
    }
    Ok(())
}

/// Whether all name servers of a resolv.conf are on the machine itself.
fn asks_loopback_only(text: &str) -> bool {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let mut addresses = servers.filter_map(|server| server.trim().parse::<std::net::IpAddr>().ok()).peekable();
    addresses.peek().is_some() && addresses.all(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_loopback_are_of_no_use_to_a_node() {
        assert!(asks_loopback_only("# x\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!asks_loopback_only("nameserver 127.0.0.53\nnameserver 10.0.0.1\n"));
        assert!(!asks_loopback_only("search x\n") && !asks_loopback_only("nameserver 10.0.0.1"));
    }

    #[test]
    fn only_the_first_node_writes_the_kubeconfig() {
        let machine = |number| Machine {
            name: "dev-1".into(),
            number,
            address: Ipv4Addr::new(172, 30, 200, 2),
            directory: "/d/dev-1".into(),
            kubeconfig: "/d/kubeconfig".into(),
        };
        let (first, second) = (machine(0).flags(), machine(1).flags());
        assert!(first.contains(&"--write-kubeconfig".to_owned()) && first.contains(&"/d/kubeconfig".to_owned()));
        assert!(second.contains(&"/pintle-dev-dev-1".to_owned()) && !second.contains(&"/d/kubeconfig".to_owned()));
    }
}
