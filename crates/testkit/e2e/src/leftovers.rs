//! What a cluster could leave behind on a machine: mounts, cgroups, processes, links and rules.

use crate::host::Host;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything that is there of a cluster whose directories lie below `directory` and whose cgroups are named after its
/// host. Other clusters on the machine do not count.
pub(crate) fn of(host: &Host, directory: &Path) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    left.extend(points.filter(|p| Path::new(p).starts_with(directory)).map(|p| format!("mount {p}")));
    let mut cgroups = Vec::new();
    collect(Path::new("/sys/fs/cgroup"), 2, &host.name, &mut cgroups)?;
    left.extend(cgroups.iter().map(|path| format!("cgroup {}", path.display())));
    let of_host = host.processes()?;
    let pids = of_host.into_iter().chain(shims(directory)?.into_iter().map(|pid| pid.to_string()));
    left.extend(pids.map(|pid| format!("process {pid} {}", command_line(&pid))));
    let files = ["data", "run", "kubeconfig"].map(|name| directory.join(name));
    left.extend(files.iter().filter(|path| path.exists()).map(|path| format!("file {}", path.display())));
    for log in fs::read_dir(directory.join("logs")).into_iter().flatten() {
        left.push(format!("file {}", log?.path().display()));
    }
    let links = host.run(&["ip", "-brief", "link"])?.ok()?;
    let foreign = links.lines().filter(|l| !["lo", "eth0", "outside"].iter().any(|own| l.starts_with(own)));
    left.extend(foreign.map(|l| format!("link {l}")));
    let rules = host.run(&["nft", "list", "ruleset"])?.ok()?;
    left.extend(rules.lines().filter(|l| l.starts_with("table")).map(|l| format!("nftables {l}")));
    Ok(left)
}

/// The directories of that name, a few levels deep.
fn collect(directory: &Path, depth: u8, name: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == name {
            found.push(entry.path());
        } else if depth > 0 {
            // A cgroup of somebody else may go away while we look.
            collect(&entry.path(), depth - 1, name, found).unwrap_or_default();
        }
    }
    Ok(())
}

/// The cgroups of single containers below those of a host.
pub(crate) fn cgroups_below(name: &str) -> Result<Vec<PathBuf>> {
    let mut own = Vec::new();
    collect(Path::new("/sys/fs/cgroup"), 1, name, &mut own)?;
    let mut found = Vec::new();
    for entry in own.iter().flat_map(|path| fs::read_dir(path.join("docker"))).flatten() {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// How many cgroups there are below those of a host, in all hierarchies.
pub(crate) fn all_cgroups_below(name: &str) -> Result<usize> {
    let mut own = Vec::new();
    collect(Path::new("/sys/fs/cgroup"), 1, name, &mut own)?;
    Ok(own.iter().map(|path| directories(path)).sum())
}

/// The directories below one. What goes away meanwhile is not there.
fn directories(path: &Path) -> usize {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|one| 1 + directories(&one.path()))
        .sum()
}

/// The shims whose sandboxes' directories lie below `directory`; they run in the sandboxes' networks.
pub(crate) fn shims(directory: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let command = command_line(&pid.to_string());
        if command.strip_prefix("pintle-shim ").is_some_and(|path| Path::new(path.trim()).starts_with(directory)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The processes that were started with a path below `directory` among their words.
pub(crate) fn processes_about(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let command = command_line(&pid.to_string());
        if command.split(' ').any(|word| Path::new(word).starts_with(directory)) {
            found.push(format!("process {pid} {command}"));
        }
    }
    Ok(found)
}

/// What a process was started as; empty when it has ended.
fn command_line(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}
