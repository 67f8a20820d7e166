//! Puts files, directories, links and devices into a directory, in the place of what is there.

use crate::root;
use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The attribute of capabilities that a program gets: the only one that is copied.
pub(crate) const CAPABILITY: &str = "security.capability";

/// What an entry has beside its content.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    /// None leaves it to the process, which is root.
    pub owner: Option<(u32, u32)>,
    /// Without the kind.
    pub mode: u32,
    pub mtime: Timespec,
    pub capability: Option<Vec<u8>>,
    /// The owner is set last, as Docker does when it is not the source's: that takes set-user-id and capabilities away.
    pub owner_last: bool,
}

/// What an entry is.
pub(crate) enum Content<'a> {
    File(&'a mut dyn Read),
    Link(&'a [u8]),
    Node(FileType, u64),
}

fn times(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: mtime, last_modification: mtime }
}

/// Puts an entry that is no directory; returns the bytes of its content.
pub(crate) fn put(parent: BorrowedFd<'_>, name: &OsStr, content: Content<'_>, meta: &Meta) -> io::Result<u64> {
    root::remove(parent, name, 0)?;
    let mut bytes = 0;
    match content {
        Content::File(source) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rfs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
            bytes = io::copy(source, &mut file)?;
            dress(file.as_fd(), meta)?;
            rfs::futimens(&file, &times(meta.mtime))?;
            return Ok(bytes);
        }
        Content::Link(target) => rfs::symlinkat(OsStr::from_bytes(target), parent, name)?,
        Content::Node(kind, device) => {
            rfs::mknodat(parent, name, kind, Mode::from_raw_mode(meta.mode), device)?;
            rfs::chmodat(parent, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
        }
    }
    if let Some((uid, gid)) = meta.owner {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rfs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rfs::utimensat(parent, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(bytes)
}

/// Opens a directory; what is no directory makes place for a new one. Says whether it is new.
pub(crate) fn directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<(OwnedFd, bool)> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rfs::openat(parent, name, flags, Mode::empty()) {
        Ok(opened) => return Ok((opened, false)),
        Err(Errno::NOENT) => {}
        Err(_) => root::remove(parent, name, 0)?,
    }
    rfs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    Ok((rfs::openat(parent, name, flags, Mode::empty())?, true))
}

/// Sets owner, mode and capabilities of what is open.
pub(crate) fn dress(file: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    let own = || match meta.owner {
        Some((uid, gid)) => rfs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
        None => Ok(()),
    };
    if !meta.owner_last {
        own()?;
    }
    rfs::fchmod(file, Mode::from_raw_mode(meta.mode & 0o7777))?;
    if let Some(capability) = &meta.capability {
        match rfs::fsetxattr(file, CAPABILITY, capability, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if meta.owner_last {
        own()?;
    }
    Ok(())
}

/// Sets the time of a directory, after everything is in it.
pub(crate) fn set_time(directory: BorrowedFd<'_>, mtime: Timespec) -> io::Result<()> {
    Ok(rfs::futimens(directory, &times(mtime))?)
}
