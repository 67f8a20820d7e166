//! Finds which cgroup hierarchies are mounted where, and makes directories in them.

use crate::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// A hierarchy per controller.
    V1,
    /// As version 1, with a cgroup2 mount beside it that holds few or no controllers.
    Hybrid,
    /// One hierarchy for all.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// Its controllers; on version 2 those that the root offers.
    pub controllers: Vec<String>,
    pub v2: bool,
}

impl Hierarchy {
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    /// Makes the directory and those above it, ready to hold processes. What is made below a cpuset of ours takes its
    /// processors by itself: when they are written, the kernel asks every neighbour.
    pub(super) fn create(&self, relative: &str) -> Result<()> {
        let dir = self.mount.join(relative);
        let cpuset = self.has("cpuset") && !self.v2;
        if dir.is_dir() && !(cpuset && lacks_cpuset(&dir)) {
            return Ok(());
        }
        let mut current = self.mount.clone();
        for part in relative.split('/') {
            if self.v2 {
                self.delegate(&current)?;
            }
            let parent = current.clone();
            current.push(part);
            let made = match fs::create_dir(&current) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::new(format!("create cgroup {}", current.display()), e));
                }
                made => made.is_ok(),
            };
            // Also where somebody else has made it just now and has not come to that yet.
            if cpuset && lacks_cpuset(&current) {
                inherit_cpuset(&parent, &current)?;
            }
            if cpuset && made && current != dir {
                let file = current.join("cgroup.clone_children");
                fs::write(&file, "1").context(|| format!("write {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// Gives the children of a version 2 cgroup every controller that it has itself. A cgroup that holds processes
    /// refuses (EBUSY): then its children do without, and a limit that needs the controller says so.
    fn delegate(&self, dir: &Path) -> Result<()> {
        let file = dir.join("cgroup.subtree_control");
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let (offered, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        let enabled: Vec<&str> = enabled.split_whitespace().collect();
        for controller in offered.split_whitespace().filter(|c| !enabled.contains(c)) {
            match fs::write(&file, format!("+{controller}")) {
                Ok(()) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EINVAL | libc::ENOENT)) => {}
                Err(e) => return Err(Error::new(format!("enable {controller} in {}", file.display()), e)),
            }
        }
        Ok(())
    }
}

const CPUSET_FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// A version 1 cpuset takes no process before it has processors and memory nodes.
fn lacks_cpuset(dir: &Path) -> bool {
    CPUSET_FILES.iter().any(|file| fs::read_to_string(dir.join(file)).is_ok_and(|value| value.trim().is_empty()))
}

fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in CPUSET_FILES {
        let value = fs::read_to_string(parent.join(file)).context(|| format!("read {file} of {}", parent.display()))?;
        fs::write(child.join(file), value.trim()).context(|| format!("write {file} of {}", child.display()))?;
    }
    Ok(())
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Layout {
    version: Version,
    /// Never empty.
    hierarchies: Vec<Hierarchy>,
    /// Mounted too, but of no use here: named ones, and the second version's beside the first. Other runtimes have their
    /// containers in these as well.
    others: Vec<PathBuf>,
}

/// The file that stops the processes of a cgroup, and its words.
pub(super) struct Freezer {
    pub file: PathBuf,
    pub going: &'static str,
    pub stopped: &'static str,
}

/// Names that can appear among the super options of a version 1 mount and are controllers.
const V1_CONTROLLERS: [&str; 13] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
];

impl Layout {
    /// Reads a mountinfo file (proc_pid_mountinfo(5)). Nothing when no hierarchy of use is mounted.
    pub(super) fn parse(mountinfo: &str) -> Option<Self> {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut v2: Option<Hierarchy> = None;
        let mut named = Vec::new();
        for line in mountinfo.lines() {
            let Some((mount, kind, options)) = fields(line) else { continue };
            match kind {
                "cgroup" => {
                    let controllers: Vec<String> =
                        options.split(',').filter(|o| V1_CONTROLLERS.contains(o)).map(str::to_owned).collect();
                    let known = v1.iter().any(|h| h.controllers == controllers);
                    if controllers.is_empty() {
                        named.push(mount);
                    } else if !known {
                        v1.push(Hierarchy { mount, controllers, v2: false });
                    }
                }
                "cgroup2" if v2.is_none() => {
                    let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
                    let controllers = controllers.split_whitespace().map(str::to_owned).collect();
                    v2 = Some(Hierarchy { mount, controllers, v2: true });
                }
                _ => {}
            }
        }
        let (version, hierarchies) = match (v1.is_empty(), v2) {
            (true, None) => return None,
            (true, Some(unified)) => (Version::V2, vec![unified]),
            (false, None) => (Version::V1, v1),
            (false, Some(unified)) => {
                named.push(unified.mount);
                (Version::Hybrid, v1)
            }
        };
        Some(Self { version, hierarchies, others: named })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    pub(super) fn others(&self) -> &[PathBuf] {
        &self.others
    }

    /// The version 1 hierarchy of a controller.
    pub(super) fn v1(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| !h.v2 && h.has(controller))
    }

    /// What stops the processes of a cgroup, in either version.
    pub(super) fn freezer(&self, relative: &str) -> Freezer {
        let (mount, file, going, stopped) = match self.v1("freezer") {
            Some(hierarchy) => (&hierarchy.mount, "freezer.state", "THAWED", "FROZEN"),
            None => (&self.hierarchies[0].mount, "cgroup.freeze", "0", "1"),
        };
        Freezer { file: mount.join(relative).join(file), going, stopped }
    }

    /// Where a controller's files are, in either version.
    pub(super) fn directory(&self, controller: &str, relative: &str) -> Option<PathBuf> {
        let found = self.hierarchies.iter().find(|h| h.v2 || h.has(controller))?;
        Some(found.mount.join(relative))
    }
}

/// Mount point, filesystem type and super options of a mountinfo line.
fn fields(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let mount = left.split(' ').nth(4)?;
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1).unwrap_or_default();
    // Spaces and the like come as octal escapes; a cgroup mounted at such a place is not worth supporting.
    Some((PathBuf::from(mount), kind, options))
}
