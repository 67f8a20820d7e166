//! The user namespace of a sandbox: root inside is somebody without any right outside.
//!
//! A helper process is cloned into it together with the network, ipc and uts namespaces, so that those belong to it
//! and root inside may use its rights on them; the shim, which stays in the machine's user namespace, then joins them.
//! A container's root is built with the machine's rights from ID-mapped mounts; then its first process enters the
//! user namespace and a copy of the mount namespace, in which the kernel locks everything that is mounted or masked.

use crate::protocol::SandboxSpec;
use pintle_linux::id_map::{IdMappings, IdRange};
use pintle_linux::process::{self, Forked, namespace};
use pintle_linux::{Context, Error, Result, netns};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The kernel takes at most so many ranges (user_namespaces(7)).
const MAX_RANGES: usize = 340;

/// A user namespace, kept by its descriptor.
pub struct UserNamespace {
    file: File,
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
}

/// How a process of a container comes in.
pub struct Entry<'a> {
    of: &'a UserNamespace,
    own_mounts: bool,
}

impl UserNamespace {
    /// Makes it, and moves the calling process into those other namespaces of the sandbox that belong to it.
    pub fn create(spec: &SandboxSpec) -> Result<Self> {
        check(&spec.id_mappings.users, "users")?;
        check(&spec.id_mappings.groups, "groups")?;
        let mut with = 0;
        let own_netns = spec.netns.as_ref().filter(|_| !spec.joined_netns);
        if own_netns.is_some() {
            with |= namespace::NETWORK;
        }
        if spec.ipc && spec.join_ipc.is_none() {
            with |= namespace::IPC;
        }
        if !spec.hostname.is_empty() || !spec.domainname.is_empty() {
            with |= namespace::UTS;
        }
        let (made, helper) = Self::make(spec.id_mappings.clone(), with)?;
        if with != 0 {
            process::enter(helper.0.as_fd(), with)?;
        }
        drop(helper);
        if let Some(path) = own_netns {
            netns::loopback_up()?;
            netns::bind_current(path)?;
        }
        Ok(made)
    }

    /// Makes it, with other namespaces that belong to it; a process keeps those until it is dropped.
    pub fn make(mappings: IdMappings, with: u64) -> Result<(Self, Helper)> {
        // SAFETY: the shim has one thread; the child only waits to be killed.
        #[allow(unsafe_code)]
        let forked = unsafe { process::fork(namespace::USER | with, None) };
        let (pid, helper) = match forked.context(|| "make a user namespace")? {
            Forked::Child => wait_for_the_end(),
            Forked::Parent { pid, pidfd } => (pid, Helper(pidfd)),
        };
        let IdMappings { users, groups } = mappings;
        write_map(pid, "uid_map", &users)?;
        write_map(pid, "gid_map", &groups)?;
        let file = File::open(format!("/proc/{pid}/ns/user")).context(|| "open the user namespace")?;
        Ok((Self { file, users, groups }, helper))
    }

    /// The one that a file stands for.
    pub fn at(path: &Path) -> Result<Self> {
        let file = File::open(path).context(|| format!("open the user namespace {}", path.display()))?;
        let (mut ours, mut theirs) = UnixStream::pair().context(|| "make a socket pair")?;
        // SAFETY: the caller has one thread; the child only enters and waits to be killed.
        #[allow(unsafe_code)]
        let forked = unsafe { process::fork(0, None) };
        match forked.context(|| "fork into a user namespace")? {
            Forked::Child => {
                let entered = process::enter(file.as_fd(), namespace::USER).is_ok();
                // Without a word the other side fails to read, which says enough.
                if entered && theirs.write_all(&[1]).is_ok() {
                    wait_for_the_end();
                }
                process::exit_now(1)
            }
            Forked::Parent { pid, pidfd } => {
                let _helper = Helper(pidfd);
                drop(theirs);
                ours.read_exact(&mut [0]).context(|| format!("enter the user namespace {}", path.display()))?;
                Self::of_process(pid)
            }
        }
    }

    /// That of a running process.
    pub fn of_process(pid: i32) -> Result<Self> {
        let file = File::open(format!("/proc/{pid}/ns/user")).context(|| "open the user namespace")?;
        Ok(Self { file, users: read_map(pid, "uid_map")?, groups: read_map(pid, "gid_map")? })
    }

    pub fn handle(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// For a container's first process, which still is in a mount namespace of the machine's user namespace.
    pub fn to_start(&self) -> Entry<'_> {
        Entry { of: self, own_mounts: true }
    }

    /// For a further process, which has joined the first one's mount namespace.
    pub fn to_join(&self) -> Entry<'_> {
        Entry { of: self, own_mounts: false }
    }

    /// Who a group of the namespace is outside.
    pub fn outer_group(&self, inside: u32) -> Result<u32> {
        outer(&self.groups, inside).ok_or_else(|| unmapped("group", inside))
    }
}

/// A process that does nothing but keep namespaces; it ends when this is dropped.
pub struct Helper(OwnedFd);

impl Helper {
    /// Stands for its namespaces in `process::enter`.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It does nothing but wait for this.
        let _ = process::signal(self.0.as_fd(), libc::SIGKILL);
    }
}

impl Entry<'_> {
    /// Who a user of the namespace is outside.
    pub fn outer_user(&self, inside: u32) -> Result<u32> {
        outer(&self.of.users, inside).ok_or_else(|| unmapped("user", inside))
    }

    pub fn outer_group(&self, inside: u32) -> Result<u32> {
        self.of.outer_group(inside)
    }

    /// Becomes root of the namespace; there is no way back.
    pub fn enter(self) -> Result<()> {
        process::enter(self.of.handle(), namespace::USER)?;
        process::become_user(0, 0, &[])?;
        if self.own_mounts { process::unshare(namespace::MOUNT) } else { Ok(()) }
    }
}

fn unmapped(kind: &str, id: u32) -> Error {
    Error::invalid(format!("{kind} {id}"), "has no place in the id mappings of the user namespace")
}

fn outer(ranges: &[IdRange], inside: u32) -> Option<u32> {
    let range = ranges.iter().find(|r| inside >= r.inside && inside - r.inside < r.size)?;
    Some(range.outside + (inside - range.inside))
}

/// Root must be somebody, nobody of the machine may be reached by counting over the end, and nobody is root outside.
fn check(ranges: &[IdRange], what: &str) -> Result<()> {
    let fits = |r: &IdRange| {
        r.size > 0 && r.inside.checked_add(r.size - 1).is_some() && r.outside.checked_add(r.size - 1).is_some()
    };
    let wrong = if ranges.len() > MAX_RANGES {
        "has more than 340 ranges"
    } else if !ranges.iter().all(fits) {
        "has a range that is empty or too large"
    } else if outer(ranges, 0).is_none() {
        "does not map id 0"
    } else if ranges.iter().any(|r| r.outside == 0) {
        "maps id 0 of the machine"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("the id mapping of {what}"), wrong))
}

fn write_map(pid: i32, file: &str, ranges: &[IdRange]) -> Result<()> {
    let lines: String = ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.size)).collect();
    std::fs::write(format!("/proc/{pid}/{file}"), lines).context(|| format!("write {file} of a user namespace"))
}

fn read_map(pid: i32, file: &str) -> Result<Vec<IdRange>> {
    let what = || format!("read {file} of process {pid}");
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).context(what)?;
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|n| n.parse().ok());
        Some(IdRange { inside: numbers.next()??, outside: numbers.next()??, size: numbers.next()?? })
    };
    Ok(text.lines().filter_map(range).collect())
}

fn wait_for_the_end() -> ! {
    loop {
        // SAFETY: waits for a signal; nothing else.
        #[allow(unsafe_code)]
        unsafe {
            libc::pause();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_and_mappings_that_reach_the_machine_are_refused() {
        let range = |inside, outside, size| IdRange { inside, outside, size };
        let good = [range(0, 100_000, 1000), range(5000, 300_000, 10)];
        check(&good, "users").unwrap();
        assert_eq!(outer(&good, 5), Some(100_005));
        assert_eq!((outer(&good, 5009), outer(&good, 1000)), (Some(300_009), None));
        for bad in [range(1, 100_000, 10), range(0, 0, 10), range(0, 100_000, 0), range(0, u32::MAX, 2)] {
            assert!(check(&[bad], "users").is_err(), "{bad:?}");
        }
    }
}
