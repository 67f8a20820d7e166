//! Writes the kernel's settings of containers' network namespaces (/proc/sys/net).
//!
//! The settings of all network namespaces have the same names in one cache of the kernel for each mount of /proc, so to
//! look one up takes time for each namespace that was looked into before. Here they are written through a mount of our
//! own that is nowhere attached and is replaced by a new one, with an empty cache, before that counts.

use super::links::set_kernel;
use super::rules::failed;
use crate::error::Result;
use pintle_linux::mount::{INERT, Tree};
use pintle_netlink::namespace;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// How many namespaces are looked into through one mount.
const MOST_NAMESPACES: u32 = 32;

/// The settings of network namespaces that are new.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// With the number of namespaces that were looked into.
    view: Option<(Tree, u32)>,
}

impl Settings {
    /// Writes a setting, its name below /proc/sys/net, in a network namespace.
    pub fn set(&mut self, netns: &File, name: &str, value: &str) -> Result<()> {
        let view = self.view();
        let set = namespace::enter(netns.as_fd(), || match view.map(|proc| write(proc, name, value)) {
            Some(Ok(())) => Ok(()),
            // It may be as it should be, or not be there at all; or there is no such mount.
            _ => set_kernel(name, value).map(drop),
        });
        set.map_err(failed)?
    }

    fn view(&mut self) -> Option<BorrowedFd<'_>> {
        if self.view.as_ref().is_none_or(|(_, used)| *used >= MOST_NAMESPACES) {
            self.view = Tree::of_filesystem("proc", &[], INERT).ok().map(|tree| (tree, 0));
        }
        self.view.as_mut().map(|(tree, used)| {
            *used += 1;
            (*tree).as_fd()
        })
    }
}

fn write(proc: BorrowedFd<'_>, name: &str, value: &str) -> std::io::Result<()> {
    let file = rustix::fs::openat(proc, format!("sys/net/{name}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    std::io::Write::write_all(&mut File::from(file), value.as_bytes())
}
