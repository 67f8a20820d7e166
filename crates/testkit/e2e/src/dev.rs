//! A cluster that `pintle dev` makes on a machine of a user, and what it could leave there.

use crate::cluster::{binary, newest_kubectl};
use crate::command::{Output, run};
use crate::host::{Host, ip};
use crate::leftovers;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A user's machine, and the name of the one cluster on it.
pub struct Dev {
    pub host: Host,
    pub name: String,
    directory: tempfile::TempDir,
}

impl Dev {
    pub fn new() -> Result<Self> {
        // At most eight letters and digits, which no other run has at the same time.
        let name = format!("e{}{}", std::process::id() % 1_000_000, NEXT.fetch_add(1, Ordering::Relaxed) % 10);
        let directory = tempfile::Builder::new().prefix("pintle-dev-").tempdir()?;
        Ok(Self { host: Host::new()?, name, directory })
    }

    /// Where its clusters are.
    pub fn place(&self) -> PathBuf {
        self.directory.path().join("clusters")
    }

    /// A file of the cluster.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place().join(&self.name).join(name)
    }

    /// The name of a node, from 1.
    pub fn node(&self, number: u8) -> String {
        format!("{}-{number}", self.name)
    }

    /// Runs `pintle dev` with these words to its end.
    pub fn dev(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.host.command(&binary()?.to_string_lossy());
        command.arg("dev").args(words).arg("--dir").arg(self.place());
        run(command, "")
    }

    /// The same of the cluster's own name.
    pub fn named(&self, words: &[&str]) -> Result<Output> {
        self.dev(&[words, &["--name", &self.name]].concat())
    }

    /// Runs kubectl on the user's machine, with the kubeconfig that the cluster has.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.host.command(&newest_kubectl()?.to_string_lossy());
        command.arg("--kubeconfig").arg(self.path("kubeconfig")).args(arguments);
        command.env("HOME", self.directory.path()).env_remove("KUBECONFIG");
        run(command, input)?.ok()
    }

    /// Everything that is there of the cluster.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let mut left = leftovers::of(&self.host, self.directory.path())?;
        if self.place().exists() {
            left.push(format!("file {}", self.place().display()));
        }
        let spaces = ip(&["netns", "list"])?;
        left.extend(spaces.lines().filter(|line| line.contains(&self.name)).map(|line| format!("namespace {line}")));
        let prefix = format!("pintle-dev-{}-", self.name);
        for hierarchy in
            fs::read_dir("/sys/fs/cgroup")?.chain(fs::read_dir("/sys/fs/cgroup/unified").into_iter().flatten())
        {
            left.extend(children(&hierarchy?.path()).filter(|path| path.contains(&prefix)));
        }
        left.extend(leftovers::processes_about(self.directory.path())?);
        Ok(left)
    }

    /// Whether the user's machine passes packets on.
    pub fn forwards(&self) -> Result<bool> {
        Ok(self.host.run(&["cat", "/proc/sys/net/ipv4/ip_forward"])?.ok()?.trim() == "1")
    }
}

fn children(path: &Path) -> impl Iterator<Item = String> {
    let own = std::iter::once(path.display().to_string());
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own.chain(entries.map(|entry| entry.path().display().to_string()))
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.path("cluster.yaml").exists() {
            // A test that failed; what this leaves, somebody has to look at.
            let _ = self.named(&["down"]);
        }
    }
}
