//! What a cluster on one machine is: its name, its network, and how many nodes it has; all else follows.

use super::machine::Machine;
use crate::join;
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use pintle_netlink::lan;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FILE: &str = "cluster.yaml";
const MAX_BYTES: u64 = 64 << 10;
pub(super) const API_PORT: u16 = 6443;

/// Written down as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) net: Ipv4Net,
    pub(super) nodes: u8,
    /// Whether this machine did not pass packets on before, and is to stop when the cluster goes.
    pub(super) stop_forwarding: bool,
    #[serde(skip)]
    pub(super) directory: PathBuf,
}

impl Plan {
    pub(super) fn new(name: &str, directory: &Path, net: Ipv4Net, nodes: u8) -> Self {
        let stop_forwarding = !super::switch::forwards();
        Self { name: name.to_owned(), net, nodes, stop_forwarding, directory: directory.to_owned() }
    }

    pub(super) fn save(&self) -> Result<()> {
        crate::cluster::private_directory(&self.directory)?;
        join::write(&self.directory.join(FILE), &serde_yaml_ng::to_string(self)?)
    }

    /// Nothing when the directory has no cluster.
    pub(super) fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {} (run this as root)", path.display())),
            Ok(file) => anyhow::ensure!(file.len() <= MAX_BYTES, "{} is too large to be ours", path.display()),
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let plan: Self = serde_yaml_ng::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        Ok(Some(Self { directory: directory.to_owned(), ..plan }))
    }

    /// Node 0 is the server's.
    pub(super) fn machine(&self, number: u8) -> Machine {
        let name = format!("{}-{}", self.name, number + 1);
        Machine {
            directory: self.directory.join(&name),
            address: lan::address(self.net, number),
            kubeconfig: self.kubeconfig(),
            name,
            number,
        }
    }

    pub(super) fn machines(&self) -> Vec<Machine> {
        (0..self.nodes).map(|number| self.machine(number)).collect()
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    pub(super) fn server(&self) -> String {
        format!("https://{}:{API_PORT}", lan::address(self.net, 0))
    }

    /// The bridge's name.
    pub(super) fn bridge(&self) -> String {
        format!("pd-{}", self.name)
    }

    /// The name of the bridge's port of a machine: links have at most fifteen letters.
    pub(super) fn port(&self, machine: &Machine) -> String {
        format!("pd-{}-{}", self.name, machine.number + 1)
    }

    /// The table of rules that lets nodes reach the outside.
    pub(super) fn table(&self) -> String {
        format!("pintle_dev_{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Plan::load(folder.path()).unwrap(), None);
        let plan = Plan::new("longname", folder.path(), "172.30.200.0/24".parse().unwrap(), 50);
        plan.save().unwrap();
        assert_eq!(Plan::load(folder.path()).unwrap().unwrap(), plan);
        let last = plan.machine(49);
        assert_eq!((last.name.as_str(), last.address.to_string().as_str()), ("longname-50", "172.30.200.51"));
        assert_eq!(plan.port(&last), "pd-longname-50");
        assert!(plan.port(&last).len() <= 15);
        assert_eq!(plan.server(), "https://172.30.200.2:6443");
        std::fs::write(folder.path().join(FILE), "name: [").unwrap();
        assert!(Plan::load(folder.path()).is_err());
    }
}
