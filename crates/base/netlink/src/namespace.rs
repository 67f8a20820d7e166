//! Network namespaces: made, pinned to a path, entered by a thread of their own, removed.
//!
//! A namespace lives as long as a process, a descriptor or a mount holds it. Here a bind mount on a file holds it, as
//! with `ip netns`, so that it outlives the process that made it. The calling thread never changes its own namespace.
#![allow(unsafe_code)]

use crate::{Error, Result};
use rustix::mount::{self, UnmountFlags};
use rustix::thread::{self, LinkNameSpaceType, UnshareFlags};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a network namespace with its loopback up, and pins it to `path`, a file that must not exist yet.
pub fn create(path: &Path) -> Result<()> {
    let failed = |doing, source| Error::Namespace { path: path.into(), doing, source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|source| failed("make its folder", source))?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
        .map_err(|source| failed("make the file that pins it", source))?;
    let made = on_own_thread(|| pin_new(path))
        .and_then(|made| made.map_err(|source| failed("make and pin it", source)))
        .and_then(|()| crate::Netlink::in_namespace(open(path)?.as_fd())?.raise_loopback());
    if made.is_err() {
        // The first error is the one worth telling.
        delete(path).ok();
    }
    made
}

/// Unpins the namespace at `path` and removes the file; nothing there is success. Processes inside keep it alive.
pub fn delete(path: &Path) -> Result<()> {
    let failed = |doing, source| Error::Namespace { path: path.into(), doing, source };
    match mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // INVAL: the file is there, but nothing is mounted on it.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(source) => return Err(failed("unmount", source.into())),
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove the file", source)),
        _ => Ok(()),
    }
}

/// Opens the namespace that is pinned at `path` (or `/proc/<pid>/ns/net`).
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| Error::Namespace { path: path.into(), doing: "open", source })
}

/// Runs `work` on a thread of its own inside the namespace, and returns what it returned.
pub fn enter<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    on_own_thread(|| {
        thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|source| {
            Error::Namespace { path: "by descriptor".into(), doing: "enter", source: source.into() }
        })?;
        Ok(work())
    })?
}

fn pin_new(path: &Path) -> io::Result<()> {
    // SAFETY: the thread was made for this, shares no state that depends on its network namespace, and ends after.
    unsafe { thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    mount::mount_bind("/proc/thread-self/ns/net", path)?;
    Ok(())
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let spawn_failed = |source| Error::Socket { doing: "start a thread for a network namespace", source };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 << 10)
            .spawn_scoped(scope, work)
            .map_err(spawn_failed)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
