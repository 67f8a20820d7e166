//! Writes directories as tar streams: a container's changes as a layer, and its whole root file system.
//!
//! The same content makes the same bytes: names are in order, times are whole seconds, owners are numbers. What a
//! plain header has no room for goes into PAX records. Source: POSIX pax; OCI image specification, "Layer".

use crate::tree::{Action, Plan, Upper, is_opaque, lookup, names_below};
use crate::{At, ImageError, Result};
use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Mode, OFlags};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of a name that a plain header holds.
const SHORT: usize = 100;
const MAX_ATTRIBUTE: usize = 64 << 10;
const MAX_DEPTH: usize = 256;

/// Writes what differs in a container's own layer.
pub(crate) fn write_layer(plan: &Plan, upper: &Path, target: impl Write) -> Result<()> {
    let upper = Upper::open(upper)?;
    let mut tarball = Tarball::new(target);
    for item in &plan.items {
        let parent = item.path.parent().unwrap_or(Path::new(""));
        let name = item.path.file_name().unwrap_or_default();
        match item.action {
            Action::Put => {
                let Ok(parent) = upper.directory(parent) else { continue };
                tarball.entry(&item.path, &parent, name)?;
            }
            Action::Whiteout => {
                let mut marker = OsString::from(".wh.");
                marker.push(name);
                tarball.marker(&parent.join(marker))?;
            }
            Action::Opaque => tarball.marker(&item.path.join(".wh..wh..opq"))?,
            Action::Hidden => {}
        }
    }
    tarball.finish()
}

/// Writes a container's whole root file system: its own layer over those below, topmost first.
pub(crate) fn write_merged(upper: &Path, lower: &[PathBuf], target: impl Write) -> Result<()> {
    let upper = Upper::open(upper)?;
    let mut tarball = Tarball::new(target);
    merged(&mut tarball, &upper, Path::new(""), true, lower, 0)?;
    tarball.finish()
}

fn merged<W: Write>(
    tarball: &mut Tarball<W>,
    upper: &Upper,
    path: &Path,
    in_upper: bool,
    lower: &[PathBuf],
    depth: usize,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(ImageError::Invalid(format!("/{} is deeper than {MAX_DEPTH} directories", path.display())));
    }
    let own = if in_upper { Some(upper.directory(path)?) } else { None };
    let mut names = match &own {
        Some(directory) => upper.names(directory, path)?,
        None => BTreeSet::new(),
    };
    let lower = if own.as_ref().is_some_and(is_opaque) { &[] } else { lower };
    names.extend(names_below(lower)?);
    for name in names {
        let child = path.join(&name);
        let below = lookup(lower, &name)?;
        let stat = own.as_ref().and_then(|own| rfs::statat(own, &name, AtFlags::SYMLINK_NOFOLLOW).ok());
        let kind = stat.as_ref().map(|s| FileType::from_raw_mode(s.st_mode));
        match (kind, stat, &own) {
            (Some(FileType::CharacterDevice), Some(stat), _) if stat.st_rdev == 0 => {}
            (Some(kind), _, Some(own)) => {
                tarball.entry(&child, own, &name)?;
                if kind == FileType::Directory {
                    let through = below.map(|b| b.directories).unwrap_or_default();
                    merged(tarball, upper, &child, true, &through, depth + 1)?;
                }
            }
            _ => {
                let Some(below) = below else { continue };
                let holder = below.path.parent().unwrap_or(Path::new("/"));
                let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
                let parent = rfs::openat(CWD, holder, flags, Mode::empty()).at("open", holder)?;
                tarball.entry(&child, &parent, &name)?;
                drop(parent);
                if !below.directories.is_empty() {
                    merged(tarball, upper, &child, false, &below.directories, depth + 1)?;
                }
            }
        }
    }
    Ok(())
}

/// A tar stream that is being written.
pub(crate) struct Tarball<W: Write> {
    builder: tar::Builder<W>,
    /// Where files with several names were written first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Tarball<W> {
    pub(crate) fn new(target: W) -> Self {
        Self { builder: tar::Builder::new(target), links: HashMap::new() }
    }

    pub(crate) fn finish(self) -> Result<()> {
        let mut target = self.builder.into_inner().at("write", "a tar stream")?;
        target.flush().at("write", "a tar stream")
    }

    /// An empty file that says something of others.
    fn marker(&mut self, path: &Path) -> Result<()> {
        self.append(plain_header(tar::EntryType::Regular, 0o600, 0), path, None, &[], io::empty())
    }

    /// A file of our own making.
    pub(crate) fn file(&mut self, path: &str, mode: u32, size: u64, content: impl Read) -> Result<()> {
        let header = plain_header(tar::EntryType::Regular, mode, size);
        self.append(header, Path::new(path), None, &[], Exactly { inner: content, left: size })
    }

    /// A directory of our own making.
    pub(crate) fn folder(&mut self, path: &str) -> Result<()> {
        self.append(plain_header(tar::EntryType::Directory, 0o755, 0), Path::new(path), None, &[], io::empty())
    }

    /// Writes an entry of a directory under another path. What is gone meanwhile, and sockets, are left out.
    pub(crate) fn entry(&mut self, path: &Path, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        let Ok(stat) = rfs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let mut header = header_of(&stat).at("describe", path)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.regular(header, path, parent, name),
            FileType::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = rfs::openat(parent, name, flags, Mode::empty());
                let attributes = opened.map(|d| attributes(&d)).unwrap_or_default();
                let mut named = path.as_os_str().to_owned();
                named.push("/");
                return self.append(header, Path::new(&named), None, &attributes, io::empty());
            }
            FileType::Symlink => {
                header.set_entry_type(tar::EntryType::Symlink);
                let Ok(target) = rfs::readlinkat(parent, name, Vec::new()) else { return Ok(()) };
                return self.append(header, path, Some(target.as_bytes()), &[], io::empty());
            }
            FileType::CharacterDevice => header.set_entry_type(tar::EntryType::Char),
            FileType::BlockDevice => header.set_entry_type(tar::EntryType::Block),
            FileType::Fifo => header.set_entry_type(tar::EntryType::Fifo),
            _ => return Ok(()),
        }
        header.set_device_major(rfs::major(stat.st_rdev)).at("describe", path)?;
        header.set_device_minor(rfs::minor(stat.st_rdev)).at("describe", path)?;
        self.append(header, path, None, &[], io::empty())
    }

    fn regular(&mut self, mut header: tar::Header, path: &Path, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rfs::openat(parent, name, flags, Mode::empty()) else { return Ok(()) };
        let stat = rfs::fstat(&file).at("read", path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode).cloned() {
                header.set_entry_type(tar::EntryType::Link);
                return self.append(header, path, Some(first.as_os_str().as_bytes()), &[], io::empty());
            }
            self.links.insert(inode, path.to_owned());
        }
        header.set_entry_type(tar::EntryType::Regular);
        let size = stat.st_size.unsigned_abs();
        header.set_size(size);
        let attributes = attributes(&file);
        self.append(header, path, None, &attributes, Exactly { inner: File::from(file), left: size })
    }

    fn append(
        &mut self,
        mut header: tar::Header,
        path: &Path,
        link: Option<&[u8]>,
        attributes: &[(String, Vec<u8>)],
        content: impl Read,
    ) -> Result<()> {
        let name = path.as_os_str().as_bytes();
        let mut extra: Vec<(&str, &[u8])> = Vec::new();
        if name.len() > SHORT {
            extra.push(("path", name));
        }
        if let Some(link) = link.filter(|link| link.len() > SHORT) {
            extra.push(("linkpath", link));
        }
        extra.extend(attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
        if !extra.is_empty() {
            self.builder.append_pax_extensions(extra).at("write", path)?;
        }
        let old = header.as_old_mut();
        fill(&mut old.name, name);
        fill(&mut old.linkname, link.unwrap_or_default());
        header.set_cksum();
        self.builder.append(&header, content).at("write", path)
    }
}

fn fill(field: &mut [u8], text: &[u8]) {
    let count = field.len().min(text.len());
    field[..count].copy_from_slice(&text[..count]);
}

/// Of root, from 1970.
fn plain_header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn header_of(stat: &rfs::Stat) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    Ok(header)
}

/// The extended attributes that travel with an image, as PAX records: capabilities and the users' own.
fn attributes(file: &OwnedFd) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0_u8; MAX_ATTRIBUTE];
    let count = rfs::flistxattr(file, &mut list[..]).unwrap_or(0);
    let mut found = Vec::new();
    for name in list[..count].split(|b| *b == 0) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0_u8; MAX_ATTRIBUTE];
        if let Ok(count) = rfs::fgetxattr(file, name, &mut value[..]) {
            value.truncate(count);
            found.push((format!("SCHILY.xattr.{name}"), value));
        }
    }
    found.sort();
    found
}

/// So many bytes, whatever becomes of the file while it is read: what is missing is zeros.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let mut count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 {
            buffer[..wanted].fill(0);
            count = wanted;
        }
        self.left -= count as u64;
        Ok(count)
    }
}
