//! Runs this program from where it cannot be written, so that no container can change it by `/proc/self/exe`
//! (CVE-2019-5736): a read-only mount, or sealed memory where `pintle` has put it there.

use crate::{Error, Result};
use pintle_linux::mount::{READ_ONLY, Tree};
use pintle_linux::{Context, process};
use rustix::process::DumpableBehavior;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Makes this process one that containers can neither look into nor take its program from. Executes itself again,
/// from a read-only clone of its mount that is nowhere, unless that has been done.
pub fn protect() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context(|| "become undumpable")?;
    let own = Path::new("/proc/self/exe");
    let filesystem = rustix::fs::statvfs(own).context(|| "ask the filesystem of this program")?;
    if filesystem.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    // The clone must be of the file itself: the descriptor of a link's target.
    let program = std::fs::File::open(own).context(|| "open this program")?;
    // Files that are not in memory have no seals.
    if rustix::fs::fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(rustix::fs::SealFlags::WRITE)) {
        return Ok(());
    }
    let tree = Tree::clone_of(program.as_fd(), false)?;
    tree.set(READ_ONLY, false)?;
    let number = rustix::io::fcntl_dupfd_cloexec(&tree, 100).context(|| "keep a descriptor")?;
    let path = CString::new(format!("/proc/self/fd/{}", number.as_raw_fd())).unwrap_or_default();
    let text = |value: std::ffi::OsString| CString::new(value.into_vec()).unwrap_or_default();
    let args: Vec<CString> = std::env::args_os().map(text).collect();
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        text(name)
    });
    let error = process::exec(&path, &args, &variables.collect::<Vec<_>>());
    Err(Error::new(format!("execute this program from a read-only mount: {error}")))
}
