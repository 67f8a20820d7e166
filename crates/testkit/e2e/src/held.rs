//! What a server or engine holds of the machine, counted, to be compared before and after much work.

use crate::host::Host;
use crate::leftovers;
use anyhow::Result;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// In its network, shims, and its own children, ended ones that nobody waited for among them.
    pub processes: usize,
    pub descriptors: usize,
    pub mounts: usize,
    pub cgroups: usize,
    pub links: usize,
    /// Without the links' own IPv6 addresses: the kernel makes those some time after a link came up.
    pub routes: usize,
    /// Lines of the nftables ruleset.
    pub rules: usize,
    /// Entries of its data and run directories.
    pub files: usize,
}

impl Held {
    /// Of the process `pid` in `host`, whose `data` and `run` are in `directory`.
    pub fn of(host: &Host, pid: u32, directory: &Path) -> Result<Self> {
        let lines = |words: &[&str]| Ok::<_, anyhow::Error>(host.run(words)?.ok()?.lines().count());
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        let own = directory.display().to_string();
        Ok(Self {
            processes: host.processes()?.len() + leftovers::shims(directory)?.len() + children(pid)?,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            mounts: mounts.lines().filter(|line| line.contains(&own)).count(),
            cgroups: leftovers::all_cgroups_below(&host.name)?,
            links: lines(&["ip", "-o", "link"])?,
            routes: routes(&host.run(&["ip", "route", "show", "table", "all"])?.ok()?),
            rules: lines(&["nft", "list", "ruleset"])?,
            files: entries(&directory.join("data"))? + entries(&directory.join("run"))?,
        })
    }
}

/// A link has its own address, and a route to it, when nobody has objected to it for a second or two. A bridge begins
/// with that when it gets its first port, and keeps it when the last one has gone.
fn routes(all: &str) -> usize {
    all.lines().filter(|line| !line.starts_with("local fe80:")).count()
}

/// The processes whose parent this one is; source: proc(5), `/proc/PID/stat`.
fn children(pid: u32) -> Result<usize> {
    let parent = pid.to_string();
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        // What ended meanwhile is no child any more.
        let stat = std::fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        count += usize::from(fields.split_whitespace().nth(1) == Some(&parent));
    }
    Ok(count)
}

/// Entries below a directory. What goes away meanwhile is not there.
fn entries(directory: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let entry = entry?;
        count += 1;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            count += entries(&entry.path())?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_the_kernel_makes_in_its_own_time_are_not_counted() {
        let all = "172.17.0.0/16 dev pindocker0 proto kernel scope link src 172.17.0.1 linkdown\n\
                   local fe80::42:acff:fe11:1 dev pindocker0 table local proto kernel metric 0 pref medium\n\
                   fe80::/64 dev pindocker0 proto kernel metric 256 linkdown pref medium\n\
                   local fd00::1 dev pindocker0 table local proto kernel metric 0 pref medium\n";
        assert_eq!(routes(all), 3);
    }
}
