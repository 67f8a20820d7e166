//! Creates, limits, measures, kills and removes control groups on version 1, hybrid and version 2 hosts.
//!
//! A cgroup is named by its path from the root of each hierarchy, such as `/kubepods/burstable/pod1/c1`. On version 1
//! the same path exists in every controller's hierarchy; a cgroup2 mount beside them (hybrid) is left alone, since
//! its controllers are bound elsewhere. No state is kept: the kernel's files are the truth.
//! Sources: kernel Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.

mod layout;
mod limits;
mod procs;
mod stats;

pub use layout::{Hierarchy, Version};
pub use limits::{BlockLimits, DeviceRule, DeviceValue, Limits, weight_from_shares};
pub use stats::Stats;

use crate::{Context, Error, Result};
use layout::Layout;
use limits::Need;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The control groups of this machine. Cheap to clone, and written down for programs that see the same mounts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Layout", into = "Layout")]
pub struct Cgroups {
    layout: Arc<Layout>,
}

impl From<Layout> for Cgroups {
    fn from(layout: Layout) -> Self {
        Self { layout: Arc::new(layout) }
    }
}

impl From<Cgroups> for Layout {
    fn from(cgroups: Cgroups) -> Self {
        Arc::unwrap_or_clone(cgroups.layout)
    }
}

impl Cgroups {
    /// Finds the mounted hierarchies.
    ///
    /// # Errors
    /// No cgroup filesystem is mounted, or /proc cannot be read.
    pub fn detect() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
        Self::from_mountinfo(&text)
    }

    /// The same from the text of a mountinfo file, for tests and other mount namespaces.
    pub fn from_mountinfo(text: &str) -> Result<Self> {
        Layout::parse(text)
            .map(Self::from)
            .ok_or_else(|| Error::invalid("detect cgroups", "no cgroup filesystem with controllers is mounted"))
    }

    pub fn version(&self) -> Version {
        self.layout.version()
    }

    /// The hierarchies that a cgroup of ours has a directory in.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        self.layout.hierarchies()
    }

    /// Directories of a cgroup, one per hierarchy.
    pub fn directories(&self, path: &str) -> Result<Vec<PathBuf>> {
        let relative = relative(path)?;
        Ok(self.hierarchies().iter().map(|h| h.mount.join(relative)).collect())
    }

    /// Whether the cgroup is there.
    pub fn exists(&self, path: &str) -> bool {
        self.directories(path).is_ok_and(|dirs| dirs.iter().any(|d| d.is_dir()))
    }

    /// Makes a cgroup and what is missing above it, and applies limits. Succeeds when it is there already.
    /// Returns what this machine could not apply, in words fit for a log line.
    ///
    /// # Errors
    /// A directory could not be made, or a limit was refused; nothing is taken back.
    pub fn create(&self, path: &str, limits: &Limits) -> Result<Vec<String>> {
        let relative = relative(path)?.to_owned();
        for hierarchy in self.hierarchies() {
            hierarchy.create(&relative)?;
        }
        self.update(path, limits)
    }

    /// Applies limits to a cgroup that is there. Limits that are not set stay as they are.
    pub fn update(&self, path: &str, limits: &Limits) -> Result<Vec<String>> {
        let relative = relative(path)?;
        let mut warnings = Vec::new();
        for hierarchy in self.hierarchies() {
            let dir = hierarchy.mount.join(relative);
            let mut writes = limits.files(hierarchy).into_iter();
            while let Some(write) = writes.next() {
                match (write_file(&dir.join(&write.file), &write.value), write.need) {
                    (Ok(()), Need::OrNext) => drop(writes.next()),
                    (Ok(()), _) | (Err(_), Need::Try | Need::OrNext) => {}
                    (Err(e), Need::May) => warnings.push(format!("cgroup {path}: {e}")),
                    (Err(e), Need::Must) => return Err(e),
                }
            }
        }
        if self.version() == Version::V2
            && let Some(rules) = &limits.devices
        {
            let dir = self.open_v2(path)?;
            crate::device_filter::attach(&dir, rules)?;
        }
        Ok(warnings)
    }

    /// Moves a process, with all its threads, into a cgroup. 0 is the calling process.
    pub fn attach(&self, path: &str, pid: i32) -> Result<()> {
        // Who joins a frozen cgroup stops there and then, so that one comes last: it must be in all to be found and killed.
        let mut joined: Vec<_> = self.hierarchies().iter().zip(self.directories(path)?).collect();
        joined.sort_by_key(|(hierarchy, _)| hierarchy.has("freezer"));
        joined.iter().try_for_each(|(_, dir)| write_file(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Tells the kernel that processes will be moved soon, so that the move need not wait then. On version 1 the first
    /// move in a while waits for an RCU grace period, 5 to 20 ms on a busy machine; those that follow at once do not.
    /// So this moves the calling process to where it is. It blocks for that time: call it beside other work.
    /// Version 2 starts processes in their cgroup and has no use for it.
    pub fn expect_moves(&self) -> Result<()> {
        let first = &self.hierarchies()[0];
        if first.v2 {
            return Ok(());
        }
        let text = fs::read_to_string("/proc/self/cgroup").context(|| "read /proc/self/cgroup")?;
        let own = text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers: Vec<&str> = fields.next()?.split(',').collect();
            let path = fields.next()?;
            (controllers == first.controllers).then_some(path)
        });
        let Some(own) = own else { return Ok(()) };
        write_file(&first.mount.join(own.trim_start_matches('/')).join("cgroup.procs"), "0")
    }

    /// The directory of a cgroup on a version 2 host, for `CLONE_INTO_CGROUP`.
    pub fn open_v2(&self, path: &str) -> Result<OwnedFd> {
        let dir = self.directories(path)?.remove(0);
        Ok(File::open(&dir).context(|| format!("open cgroup {}", dir.display()))?.into())
    }

    pub fn stats(&self, path: &str) -> Result<Stats> {
        stats::read(&self.layout, relative(path)?)
    }

    /// How many processes of the cgroup, and on version 2 of those below it, the kernel killed for want of memory.
    pub fn oom_kills(&self, path: &str) -> Result<u64> {
        stats::oom_kills(&self.layout, relative(path)?)
    }

    /// Process ids in the cgroup and below it.
    pub fn processes(&self, path: &str) -> Result<Vec<i32>> {
        procs::list(&self.layout, relative(path)?)
    }

    /// Kills every process in the cgroup and below it, frozen ones too, and waits until they are gone or `timeout` is
    /// over.
    ///
    /// # Errors
    /// `TimedOut` when some process outlived the timeout.
    pub fn kill_all(&self, path: &str, timeout: Duration) -> Result<()> {
        procs::kill_all(&self.layout, relative(path)?, timeout)
    }

    /// Sends a signal to every process in the cgroup and below it, without waiting for what it does.
    pub fn signal_all(&self, path: &str, signal: i32) -> Result<()> {
        procs::signal_all(&self.layout, relative(path)?, signal)
    }

    /// Stops (true) or continues every process of the cgroup.
    pub fn freeze(&self, path: &str, frozen: bool) -> Result<()> {
        let freezer = self.layout.freezer(relative(path)?);
        write_file(&freezer.file, if frozen { freezer.stopped } else { freezer.going })
    }

    /// Whether its processes are stopped. One that is not there is not.
    pub fn is_frozen(&self, path: &str) -> bool {
        let Ok(relative) = relative(path) else { return false };
        let freezer = self.layout.freezer(relative);
        // Version 1 also says FREEZING, on the way to FROZEN.
        fs::read_to_string(&freezer.file).is_ok_and(|text| text.trim() != freezer.going)
    }

    /// Removes a cgroup and all below it, also where only other runtimes have put something. Succeeds when it is not
    /// there.
    ///
    /// # Errors
    /// It still holds processes: kill them first.
    pub fn remove(&self, path: &str) -> Result<()> {
        let relative = relative(path)?;
        let mounts = self.hierarchies().iter().map(|hierarchy| &hierarchy.mount).chain(self.layout.others());
        mounts.map(|mount| mount.join(relative)).try_for_each(|dir| remove_tree(&dir))
    }
}

/// The path without its leading slash; refuses to climb.
fn relative(path: &str) -> Result<&str> {
    let trimmed = path.trim_matches('/');
    if trimmed.is_empty() || trimmed.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::invalid(format!("cgroup path {path:?}"), "must name a cgroup below the root, without dots"));
    }
    Ok(trimmed)
}

fn write_file(path: &Path, value: &str) -> Result<()> {
    let open = fs::OpenOptions::new().write(true).open(path);
    open.and_then(|mut f| f.write_all(value.as_bytes())).context(|| format!("write {value:?} to {}", path.display()))
}

/// Removes directories from the bottom up. A cgroup whose last process has just been reaped can be busy for a
/// moment longer, so that is tried again for up to a second.
fn remove_tree(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::new(format!("list cgroup {}", dir.display()), e)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let mut delay_ms = 1;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && delay_ms < 600 => {
                std::thread::sleep(Duration::from_millis(delay_ms));
                delay_ms *= 2;
            }
            Err(e) => return Err(Error::new(format!("remove cgroup {}", dir.display()), e)),
        }
    }
}

#[cfg(test)]
mod tests;
