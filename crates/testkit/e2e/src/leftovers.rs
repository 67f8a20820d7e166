//! What a cluster could leave behind on a machine: mounts, cgroups, processes, and links and rules of its network.

use crate::host::Host;
use anyhow::Result;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What there is on the machine at some moment.
pub(crate) struct Leftovers {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    shims: BTreeSet<String>,
}

impl Leftovers {
    pub(crate) fn now() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let point = |line: &str| line.split(' ').nth(4).map(str::to_owned);
        let mut cgroups = BTreeSet::new();
        collect(Path::new("/sys/fs/cgroup"), 4, &mut cgroups)?;
        Ok(Self { mounts: mounts.lines().filter_map(point).collect(), cgroups, shims: shims()? })
    }

    /// What is there later that was not before; and what is in the host's network beyond its own.
    pub(crate) fn compare(&self, later: &Self, host: &Host) -> Result<Vec<String>> {
        let own = |text: &String| text.contains("pintle") || text.contains("kubepods");
        let mut left = Vec::new();
        // The namespace itself is a mount, and the host's to remove.
        let new_mounts = later.mounts.difference(&self.mounts).filter(|m| own(m) && !m.ends_with(&host.name));
        left.extend(new_mounts.map(|m| format!("mount {m}")));
        left.extend(
            later.cgroups.difference(&self.cgroups).filter(|c| c.contains(&host.name)).map(|c| format!("cgroup {c}")),
        );
        left.extend(later.shims.difference(&self.shims).map(|p| format!("process {p}")));
        left.extend(host.processes()?.into_iter().map(|p| format!("process {p} in the network")));
        let links = host.run(&["ip", "-brief", "link"])?.ok()?;
        let foreign = links.lines().filter(|l| !["lo", "eth0", "outside"].iter().any(|n| l.starts_with(n)));
        left.extend(foreign.map(|l| format!("link {l}")));
        let rules = host.run(&["nft", "list", "ruleset"])?.ok()?;
        left.extend(rules.lines().filter(|l| l.starts_with("table")).map(|l| format!("nftables {l}")));
        Ok(left)
    }
}

/// The directories below one, a few levels deep.
fn collect(directory: &Path, depth: u8, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        // A cgroup may go away while we look.
        let Ok(entry) = entry else { continue };
        if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.insert(entry.path().to_string_lossy().into_owned());
            collect(&entry.path(), depth - 1, found).unwrap_or_default();
        }
    }
    Ok(())
}

/// Running shims, as `pid command`.
pub(crate) fn shims() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(command) = fs::read_to_string(format!("/proc/{name}/cmdline")) else { continue };
        let command = command.replace('\0', " ");
        if command.contains("pintle-shim") && name.parse::<u32>().is_ok() {
            found.insert(format!("{name} {command}"));
        }
    }
    Ok(found)
}
