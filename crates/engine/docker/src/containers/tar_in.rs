//! Unpacks a tar stream into a directory of a container, each name resolved within the container's root by the kernel.

use super::copy::Root;
use crate::error::{DockerError, Result};
use pintle_linux::path::lexical;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use tar::{Archive, Entry, EntryType};

const MAX_ENTRIES: usize = 1 << 20;

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractOptions {
    /// A directory does not take the place of a file, nor a file that of a directory.
    pub no_overwrite_dir_non_dir: bool,
    /// Users and groups are those of the archive; else what is unpacked is root's.
    pub keep_owners: bool,
}

pub(super) fn extract(root: &Root, base: &Path, source: impl Read + Send, options: ExtractOptions) -> Result<()> {
    let bad = |e: io::Error| DockerError::invalid(format!("Error processing tar file: {e}"));
    let mut archive = Archive::new(pintle_image::decompressed(source).map_err(bad)?);
    for (count, entry) in archive.entries().map_err(bad)?.enumerate() {
        if count >= MAX_ENTRIES {
            return Err(DockerError::invalid("the archive has too many files"));
        }
        let mut entry = entry.map_err(bad)?;
        one(root, base, &mut entry, options)?;
    }
    Ok(())
}

fn one(root: &Root, base: &Path, entry: &mut Entry<'_, impl Read>, options: ExtractOptions) -> Result<()> {
    let name = entry.path().map_err(|e| DockerError::invalid(e.to_string()))?.into_owned();
    let inside = lexical(&name);
    let failed = |e: &dyn std::fmt::Display| DockerError::internal(format!("unpack {}: {e}", name.display()));
    let Some(last) = inside.file_name() else {
        // The directory itself, which is there.
        return Ok(());
    };
    let folder = base.join(inside.parent().unwrap_or(Path::new("")));
    let parent = root.dir().make_dir(&folder, 0o755).map_err(|e| failed(&e))?;
    place(root, base, &parent, last, entry, options).map_err(|e| failed(&e))
}

fn place(
    root: &Root,
    base: &Path,
    parent: &OwnedFd,
    name: &OsStr,
    entry: &mut Entry<'_, impl Read>,
    options: ExtractOptions,
) -> io::Result<()> {
    let kind = entry.header().entry_type();
    if !make_room(parent, name, kind, options)? {
        return dress(parent, name, entry, options);
    }
    let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
    match kind {
        EntryType::Directory => rustix::fs::mkdirat(parent, name, mode)?,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(parent, name, flags, mode)?);
            io::copy(entry, &mut file)?;
        }
        EntryType::Symlink => {
            let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
            rustix::fs::symlinkat(target.as_ref(), parent, name)?;
        }
        EntryType::Link => {
            let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?.into_owned();
            let from = root.dir().open(&base.join(lexical(&target)), OFlags::PATH).map_err(io::Error::other)?;
            rustix::fs::linkat(&from, "", parent, name, AtFlags::EMPTY_PATH)?;
            return Ok(());
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let file_type = match kind {
                EntryType::Char => FileType::CharacterDevice,
                EntryType::Block => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            let (major, minor) = (entry.header().device_major()?, entry.header().device_minor()?);
            let device = rustix::fs::makedev(major.unwrap_or_default(), minor.unwrap_or_default());
            rustix::fs::mknodat(parent, name, file_type, mode, device)?;
        }
        // Words of the format itself.
        _ => return Ok(()),
    }
    dress(parent, name, entry, options)
}

/// Takes away what is in the way; false when a directory is there already and stays.
fn make_room(parent: &OwnedFd, name: &OsStr, kind: EntryType, options: ExtractOptions) -> io::Result<bool> {
    let Ok(there) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(true) };
    let is_directory = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
    match (is_directory, kind == EntryType::Directory) {
        (true, true) => Ok(false),
        (true, false) if options.no_overwrite_dir_non_dir => {
            Err(io::Error::other(format!("cannot overwrite directory {name:?} with non-directory")))
        }
        (false, true) if options.no_overwrite_dir_non_dir => {
            Err(io::Error::other(format!("cannot overwrite non-directory {name:?} with directory")))
        }
        (true, false) => Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map(|()| true)?),
        (false, _) => Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty()).map(|()| true)?),
    }
}

/// Owner, mode and time.
fn dress(parent: &OwnedFd, name: &OsStr, entry: &Entry<'_, impl Read>, options: ExtractOptions) -> io::Result<()> {
    let header = entry.header();
    let id = |number: io::Result<u64>| number.ok().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let (uid, gid) = if options.keep_owners { (id(header.uid()), id(header.gid())) } else { (0, 0) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if header.entry_type() != EntryType::Symlink {
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        // What is there was made by us just now or is a directory; a link in its place would be refused.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if matches!(header.entry_type(), EntryType::Regular | EntryType::Directory)
            && let Ok(fd) = rustix::fs::openat(parent, name, flags, Mode::empty())
        {
            rustix::fs::fchmod(&fd, mode)?;
        }
    }
    let seconds = i64::try_from(header.mtime().unwrap_or_default()).unwrap_or_default();
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
