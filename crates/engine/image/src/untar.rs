//! Unpacks a layer's tar stream into a directory, in overlayfs form, without ever leaving that directory.
//!
//! Every name is resolved below the directory by the kernel (`openat2` with `RESOLVE_IN_ROOT`), so absolute names,
//! `..` and links of the archive's own making lead nowhere else. Whiteouts (`.wh.name`) become 0:0 character
//! devices, opaque markers (`.wh..wh..opq`) the `trusted.overlay.opaque` attribute.
//! Source: OCI image specification, "Image Layer Filesystem Changeset".

use crate::{ImageError, Result, entries};
use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::{Entry, EntryType};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What other entries of the engine that invented them begin with: nothing for anyone else.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const MAX_PATH_BYTES: usize = 4096;
/// Bytes that the sparse files of one layer may claim: writing holes takes time, though no space.
const MAX_SPARSE: u64 = 64 << 30;

fn bad(path: &Path, why: impl std::fmt::Display) -> ImageError {
    ImageError::BadArchive(format!("{}: {why}", path.display()))
}

/// Unpacks all of `source`; returns the bytes of file content written.
pub(crate) fn unpack(source: &mut dyn Read, directory: &Path) -> Result<u64> {
    let root = rfs::openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| bad(directory, e))?;
    let buffer = vec![0; entries::PIECE];
    let mut unpacker = Unpacker { root, directories: Vec::new(), bytes: 0, sparse: 0, buffer };
    entries::for_each(source, |entry| {
        let path = clean(entry)?;
        unpacker.entry(entry, &path)
    })?;
    unpacker.finish()
}

/// The entry's name without `/`, `.` and `..`, as if it were resolved at the root of a file system.
fn clean<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf> {
    let raw = entry.path_bytes();
    if raw.len() > MAX_PATH_BYTES {
        return Err(ImageError::BadArchive(format!("a name of {} bytes", raw.len())));
    }
    let mut out = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(&raw)).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

struct Unpacker {
    root: OwnedFd,
    /// Directories whose times are set at the end, since unpacking into them changes those.
    directories: Vec<(PathBuf, i64)>,
    bytes: u64,
    /// Bytes that sparse files claim to have.
    sparse: u64,
    buffer: Vec<u8>,
}

/// Owner, mode and time of an entry.
struct Meta {
    uid: u32,
    gid: u32,
    mode: Mode,
    mtime: i64,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let meta = meta_of(entry).map_err(|e| bad(path, e))?;
        let Some(name) = path.file_name() else { return self.root_directory(&meta).map_err(|e| bad(path, e)) };
        let parent = self.parent(path).map_err(|e| bad(path, e))?;
        if name.as_bytes() == OPAQUE {
            let opened = reopen(&parent).map_err(|e| bad(path, e))?;
            return rfs::fsetxattr(&opened, "trusted.overlay.opaque", b"y", rfs::XattrFlags::empty())
                .map_err(|e| bad(path, e));
        }
        if name.as_bytes().starts_with(WHITEOUT_META) {
            return Ok(());
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(bad(path, "a whiteout of no name"));
            }
            return whiteout(&parent, OsStr::from_bytes(hidden)).map_err(|e| bad(path, e));
        }
        self.make(entry, kind, path, &parent, name, &meta).map_err(|e| match entries::broken(e) {
            ImageError::BadArchive(why) => bad(path, why),
            other => other,
        })
    }

    fn root_directory(&self, meta: &Meta) -> io::Result<()> {
        let root = reopen(&self.root)?;
        rfs::fchown(&root, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
        Ok(rfs::fchmod(&root, meta.mode)?)
    }

    /// The directory that an entry goes into; made where it is missing.
    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match open_below(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let mut so_far = PathBuf::new();
        for part in parent.components() {
            let above = open_below(&self.root, &so_far, OFlags::PATH | OFlags::DIRECTORY)?;
            so_far.push(part);
            match rfs::mkdirat(&above, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(open_below(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY)?)
    }

    fn make<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        kind: EntryType,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
        meta: &Meta,
    ) -> io::Result<()> {
        if kind == EntryType::Directory {
            return self.directory(entry, path, parent, name, meta);
        }
        remove(parent, name)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.regular(entry, parent, name, meta);
            }
            EntryType::Link => return self.hard_link(entry, parent, name),
            EntryType::Symlink => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| io::Error::other("a symbolic link without a target"))?;
                rfs::symlinkat(OsStr::from_bytes(&target), parent, name)?;
            }
            EntryType::Char => node(entry, parent, name, FileType::CharacterDevice, meta)?,
            EntryType::Block => node(entry, parent, name, FileType::BlockDevice, meta)?,
            EntryType::Fifo => node(entry, parent, name, FileType::Fifo, meta)?,
            other => return Err(io::Error::other(format!("an entry of unknown type {other:?}"))),
        }
        let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
        rfs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != EntryType::Symlink {
            rfs::chmodat(parent, name, meta.mode, AtFlags::empty())?;
        }
        Ok(rfs::utimensat(parent, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn directory<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
        meta: &Meta,
    ) -> io::Result<()> {
        let open = || rfs::openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let opened = match open() {
            Ok(opened) => opened,
            Err(_) => {
                remove(parent, name)?;
                rfs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
                open()?
            }
        };
        dress(entry, &opened, meta)?;
        self.directories.push((path.to_owned(), meta.mtime));
        Ok(())
    }

    fn regular<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        meta: &Meta,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rfs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
        let sparse = entry.header().entry_type() == EntryType::GNUSparse;
        if sparse {
            self.sparse = self.sparse.saturating_add(entry.size());
            if self.sparse > MAX_SPARSE {
                return Err(io::Error::other(format!("sparse files of more than {MAX_SPARSE} bytes")));
            }
        }
        let mut length = 0;
        loop {
            let count = entry.read(&mut self.buffer)?;
            if count == 0 {
                break;
            }
            let piece = &self.buffer[..count];
            if sparse && piece.iter().all(|b| *b == 0) {
                file.seek_relative(i64::try_from(count).unwrap_or(0))?;
            } else {
                file.write_all(piece)?;
            }
            length += count as u64;
        }
        if sparse {
            file.set_len(length)?;
        }
        self.bytes += length;
        dress(entry, file.as_fd(), meta)?;
        Ok(rfs::futimens(&file, &times(meta.mtime))?)
    }

    fn hard_link<R: Read>(&self, entry: &Entry<'_, R>, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("a hard link without a target"))?;
        let target = Path::new(OsStr::from_bytes(&target));
        let last = target.file_name().ok_or_else(|| io::Error::other("a hard link to a directory"))?;
        let above = target.parent().unwrap_or(Path::new(""));
        let above = open_below(&self.root, above, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(rfs::linkat(&above, last, parent, name, AtFlags::empty())?)
    }

    fn finish(self) -> Result<u64> {
        for (path, mtime) in self.directories.iter().rev() {
            // A later entry may have replaced the directory by something else: then there is nothing to set.
            if let Ok(opened) = open_below(&self.root, path, OFlags::DIRECTORY | OFlags::RDONLY) {
                rfs::futimens(&opened, &times(*mtime)).map_err(|e| bad(path, e))?;
            }
        }
        Ok(self.bytes)
    }
}

fn open_below(root: impl AsFd, path: &Path, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rfs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// A descriptor for reading of a directory held by path only.
fn reopen(directory: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rfs::openat(directory, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn meta_of<R: Read>(entry: &Entry<'_, R>) -> io::Result<Meta> {
    let header = entry.header();
    let old = header.as_old();
    // Some writers leave the owner blank, which everyone reads as root.
    let id = |field: &[u8], number: io::Result<u64>| match number {
        Err(_) if field.iter().all(|b| matches!(b, 0 | b' ')) => Ok(0),
        Err(e) => Err(e),
        Ok(n) => u32::try_from(n).map_err(|_| io::Error::other(format!("an owner of {n}"))),
    };
    Ok(Meta {
        uid: id(&old.uid, header.uid())?,
        gid: id(&old.gid, header.gid())?,
        mode: Mode::from_raw_mode(header.mode()? & 0o7777),
        mtime: i64::try_from(header.mtime()?).unwrap_or(0),
    })
}

fn times(seconds: i64) -> Timestamps {
    let at = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}

fn whiteout(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    remove(parent, name)?;
    Ok(rfs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// Removes what an earlier entry of the same layer left under the name.
fn remove(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rfs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            let inside =
                rfs::openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let names: Vec<OsString> = rfs::Dir::read_from(&inside)?
                .filter_map(|e| e.ok())
                .map(|e| OsStr::from_bytes(e.file_name().to_bytes()).to_owned())
                .filter(|n| n != "." && n != "..")
                .collect();
            for name in names {
                remove(&inside, &name)?;
            }
            Ok(rfs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
        }
        Err(e) => Err(e.into()),
    }
}

fn node<R: Read>(entry: &Entry<'_, R>, parent: &OwnedFd, name: &OsStr, kind: FileType, meta: &Meta) -> io::Result<()> {
    let header = entry.header();
    let device = match (header.device_major()?, header.device_minor()?) {
        (Some(major), Some(minor)) => rfs::makedev(major, minor),
        _ => 0,
    };
    Ok(rfs::mknodat(parent, name, kind, meta.mode, device)?)
}

/// Sets owner, mode and extended attributes, in this order: a change of owner clears set-uid bits and capabilities.
fn dress<R: Read>(entry: &mut Entry<'_, R>, file: impl AsFd, meta: &Meta) -> io::Result<()> {
    rfs::fchown(&file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    rfs::fchmod(&file, meta.mode)?;
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
        // The overlay's own attributes are ours to set: an image must not forge them.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        match rfs::fsetxattr(&file, OsStr::from_bytes(name), extension.value_bytes(), rfs::XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
