//! Writes what was found into the new layer's root.

use super::sources::{Item, Origin, capability};
use crate::paths;
use crate::place::{self, Content, Meta};
use crate::root::{Found, Root, check_depth, names};
use crate::unpack::{Owners, is_archive, unpack};
use pintle_image::decompressed;
use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, Stat, Timespec};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How files are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// None keeps the owners of the sources.
    pub owner: Option<(u32, u32)>,
    /// None keeps the modes of the sources.
    pub mode: Option<u32>,
    /// Archives are unpacked.
    pub unpack: bool,
}

/// Copies one item to a destination: an absolute path, with a slash at its end when it is to be a directory.
///
/// # Errors
/// With the path that could not be written.
pub(crate) fn write(root: &Root, item: &Item, destination: &str, rules: Rules) -> io::Result<()> {
    let source = item.origin.root().find(Path::new(&item.path), true)?;
    let source = source.ok_or_else(|| io::Error::other(format!("source path not found: {}", item.path)))?;
    if source.is_directory() {
        return Writer { root, rules, links: HashMap::new() }.directory(&source, Path::new(destination));
    }
    let is_download = matches!(item.origin, Origin::Download(_));
    if rules.unpack && !is_download && source.kind() == FileType::RegularFile && is_archive(source.file()?)? {
        let target = real(root, destination)?;
        root.make_directory(&target, |_| Ok(()))?;
        let plain = decompressed(source.file()?)?;
        return unpack(plain, root, &target, Owners::Kept).map(drop);
    }
    let target = target_of(root, destination, paths::base(&item.path))?;
    Writer { root, rules, links: HashMap::new() }.file(&source, &target)
}

/// Writes a document of the Dockerfile.
pub(crate) fn write_text(root: &Root, name: &str, text: &str, destination: &str, rules: Rules) -> io::Result<()> {
    let target = target_of(root, destination, name)?;
    let writer = Writer { root, rules, links: HashMap::new() };
    let (parent, name) = writer.parent(&target)?;
    let meta = Meta {
        owner: Some(rules.owner.unwrap_or_default()),
        mode: rules.mode.unwrap_or(0o644),
        mtime: Timespec { tv_sec: 0, tv_nsec: 0 },
        capability: None,
        owner_last: false,
    };
    place::put(parent.as_fd(), name, Content::File(&mut text.as_bytes()), &meta).map(drop)
}

/// Where a destination really is.
fn real(root: &Root, destination: &str) -> io::Result<PathBuf> {
    let found = root.find(Path::new(destination), true)?;
    Ok(found.map_or_else(|| pintle_linux::path::lexical(Path::new(destination)), |found| found.path))
}

/// Where a file goes: into the destination when that is a directory or is to be one.
fn target_of(root: &Root, destination: &str, name: &str) -> io::Result<PathBuf> {
    let found = root.find(Path::new(destination), true)?;
    if destination.ends_with('/') || found.as_ref().is_some_and(Found::is_directory) {
        return Ok(real(root, destination)?.join(name));
    }
    real(root, destination)
}

struct Writer<'a> {
    root: &'a Root,
    rules: Rules,
    /// Where files with several names went first, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Writer<'_> {
    fn own(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let Some((uid, gid)) = self.rules.owner else { return Ok(()) };
        Ok(rfs::fchown(directory, Some(rfs::Uid::from_raw(uid)), Some(rfs::Gid::from_raw(gid)))?)
    }

    fn parent<'p>(&self, target: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = target.file_name().ok_or_else(|| io::Error::other("the destination is the root directory"))?;
        let parent = target.parent().unwrap_or(Path::new(""));
        Ok((self.root.make_directory(parent, |new| self.own(new))?, name))
    }

    fn meta(&self, stat: &Stat, capability: Option<Vec<u8>>) -> Meta {
        let changed = self.rules.owner.is_some();
        Meta {
            owner: self.rules.owner.or(Some((stat.st_uid, stat.st_gid))),
            mode: self.rules.mode.unwrap_or(stat.st_mode & 0o7777),
            mtime: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
            capability,
            owner_last: changed && self.rules.mode.is_none(),
        }
    }

    fn file(&self, source: &Found, target: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(target)?;
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", target.display()));
        match source.kind() {
            FileType::RegularFile => self.content(&source.file()?, &source.stat, parent.as_fd(), name).map_err(at),
            kind => {
                let meta = self.meta(&source.stat, None);
                let node = Content::Node(kind, source.stat.st_rdev);
                place::put(parent.as_fd(), name, node, &meta).map(drop).map_err(at)
            }
        }
    }

    fn content(&self, mut file: &File, stat: &Stat, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let meta = self.meta(stat, capability(file)?);
        let mut reader: &mut dyn Read = &mut file;
        place::put(parent, name, Content::File(&mut reader), &meta).map(drop)
    }

    fn directory(&mut self, source: &Found, destination: &Path) -> io::Result<()> {
        let target = match self.root.find(destination, true)? {
            Some(found) if !found.is_directory() => {
                return Err(io::Error::other(format!("cannot copy to non-directory: {}", destination.display())));
            }
            Some(found) => found.path,
            None => pintle_linux::path::lexical(destination),
        };
        self.root.make_directory(&target, |new| self.own(new))?;
        let opened = self.root.find(&target, true)?.ok_or_else(|| io::Error::other("the destination is gone"))?;
        self.below(source.read()?.as_fd(), opened.read()?.as_fd(), &target, 0)
    }

    fn below(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &Path, depth: usize) -> io::Result<()> {
        check_depth(depth)?;
        for name in names(source)? {
            let path = path.join(&name);
            let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
            let stat = rfs::statat(source, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rfs::openat(source, &name, flags, Mode::empty())?;
                let (opened, _) = place::directory(target, &name).map_err(at)?;
                self.below(inner.as_fd(), opened.as_fd(), &path, depth + 1)?;
                let meta = self.meta(&stat, None);
                place::dress(opened.as_fd(), &meta).map_err(at)?;
                place::set_time(opened.as_fd(), meta.mtime)?;
            } else {
                self.entry(source, &stat, target, &name, &path).map_err(at)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        target: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> io::Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&inode) {
            let (above, last) = self.parent(first)?;
            crate::root::remove(target, name, 0)?;
            return Ok(rfs::linkat(&above, last, target, name, AtFlags::empty())?);
        }
        match kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(rfs::openat(source, name, flags, Mode::empty())?);
                self.content(&file, stat, target, name)?;
            }
            FileType::Symlink => {
                let link = rfs::readlinkat(source, name, Vec::new())?;
                place::put(target, name, Content::Link(link.as_bytes()), &self.meta(stat, None))?;
            }
            // A socket is nothing without the process that listens.
            FileType::Socket => return Ok(()),
            kind => drop(place::put(target, name, Content::Node(kind, stat.st_rdev), &self.meta(stat, None))?),
        }
        if stat.st_nlink > 1 {
            self.links.insert(inode, path.to_owned());
        }
        Ok(())
    }
}
