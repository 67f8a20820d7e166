//! Unpacks tar streams into a root, which nothing in them leads out of: contexts, and archives that ADD unpacks.

use crate::checksum::Entry as Summed;
use crate::place::{self, CAPABILITY, Content, Meta};
use crate::root::Root;
use pintle_image::decompressed;
use rustix::fs::{self as rfs, AtFlags, FileType, Timespec};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::{Entry, EntryType};

const MAX_PATH_BYTES: usize = 4096;
const MAX_ENTRIES: usize = 4_000_000;

/// The checksums of what was unpacked, by path.
pub(crate) type Sums = HashMap<PathBuf, String>;

/// Whether files get the owners that the archive says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    Kept,
    Dropped,
}

/// Whether a file is a tar archive, compressed or not.
///
/// # Errors
/// When the program that could tell is missing.
pub(crate) fn is_archive(file: File) -> io::Result<bool> {
    let plain = match decompressed(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        Err(_) => return Ok(false),
        Ok(plain) => plain,
    };
    let mut archive = tar::Archive::new(plain);
    Ok(archive.entries().is_ok_and(|mut entries| entries.next().is_some_and(|first| first.is_ok())))
}

/// Unpacks all of a tar stream below a directory of a root.
///
/// # Errors
/// With the name of the entry that could not be unpacked.
pub(crate) fn unpack(source: impl Read, root: &Root, below: &Path, owners: Owners) -> io::Result<Sums> {
    let mut unpacker = Unpacker { root, below, owners, directories: Vec::new(), sums: Sums::new() };
    let mut archive = tar::Archive::new(source);
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(io::Error::other(format!("the archive has more than {MAX_ENTRIES} entries")));
        }
        let path = clean(&entry)?;
        unpacker.entry(&mut entry, &path).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))?;
    }
    for (path, mtime) in unpacker.directories.iter().rev() {
        // A later entry may have replaced the directory by something else: then there is nothing to set.
        if let Some(found) = root.find(path, false)?.filter(|found| found.is_directory()) {
            place::set_time(found.read()?.as_fd(), *mtime)?;
        }
    }
    Ok(unpacker.sums)
}

/// The entry's name as if it were resolved at the root of a file system.
fn clean<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let raw = entry.path_bytes();
    if raw.len() > MAX_PATH_BYTES {
        return Err(io::Error::other(format!("the archive has a name of {} bytes", raw.len())));
    }
    let mut out = PathBuf::new();
    for part in Path::new(std::ffi::OsStr::from_bytes(&raw)).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

struct Unpacker<'a> {
    root: &'a Root,
    below: &'a Path,
    owners: Owners,
    /// Their times are set at the end, since unpacking into them changes those.
    directories: Vec<(PathBuf, Timespec)>,
    sums: Sums,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let capabilities = attributes(entry)?;
        let meta = self.meta(entry, &capabilities)?;
        let name_bytes = entry.path_bytes().into_owned();
        let link = entry.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default();
        let header = entry.header();
        let device =
            (header.device_major().ok().flatten().unwrap_or(0), header.device_minor().ok().flatten().unwrap_or(0));
        let summed = Summed {
            name: &name_bytes,
            mode: header.mode()?,
            uid: number(header.uid(), &header.as_old().uid)?,
            gid: number(header.gid(), &header.as_old().gid)?,
            size: entry.size(),
            kind: if kind.as_byte() == 0 { b'0' } else { kind.as_byte() },
            link: &link,
            device,
            attributes: capabilities,
        };
        let target = self.below.join(path);
        let Some(name) = path.file_name() else {
            self.sums.insert(path.to_owned(), summed.sum());
            return Ok(());
        };
        let parent = self.root.make_directory(target.parent().unwrap_or(Path::new("")), |_| Ok(()))?;
        let sum = match kind {
            EntryType::Directory => {
                let (opened, _) = place::directory(parent.as_fd(), name)?;
                place::dress(opened.as_fd(), &meta)?;
                self.directories.push((target, meta.mtime));
                summed.sum()
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut content = summed.sum_of(entry);
                place::put(parent.as_fd(), name, Content::File(&mut content), &meta)?;
                content.finish()
            }
            EntryType::Link => {
                self.hard_link(&link, parent.as_fd(), name)?;
                summed.sum()
            }
            EntryType::Symlink => {
                place::put(parent.as_fd(), name, Content::Link(&link), &meta)?;
                summed.sum()
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let node = match kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let number = rfs::makedev(device.0, device.1);
                place::put(parent.as_fd(), name, Content::Node(node, number), &meta)?;
                summed.sum()
            }
            other => return Err(io::Error::other(format!("an entry of unknown type {other:?}"))),
        };
        self.sums.insert(path.to_owned(), sum);
        Ok(())
    }

    fn meta<R: Read>(&self, entry: &Entry<'_, R>, attributes: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Meta> {
        let header = entry.header();
        let id = |number: u64| u32::try_from(number).map_err(|_| io::Error::other(format!("an owner of {number}")));
        let uid = id(number(header.uid(), &header.as_old().uid)?)?;
        let gid = id(number(header.gid(), &header.as_old().gid)?)?;
        let capability = attributes.iter().find(|(name, _)| name == CAPABILITY.as_bytes());
        Ok(Meta {
            owner: (self.owners == Owners::Kept).then_some((uid, gid)),
            mode: header.mode()? & 0o7777,
            mtime: Timespec { tv_sec: i64::try_from(header.mtime()?).unwrap_or(0), tv_nsec: 0 },
            capability: capability.map(|(_, value)| value.clone()),
            owner_last: false,
        })
    }

    fn hard_link(&self, link: &[u8], parent: std::os::fd::BorrowedFd<'_>, name: &std::ffi::OsStr) -> io::Result<()> {
        let target = self.below.join(pintle_linux::path::lexical(Path::new(std::ffi::OsStr::from_bytes(link))));
        let (above, last) = (target.parent().unwrap_or(Path::new("")), target.file_name());
        let last = last.ok_or_else(|| io::Error::other("a hard link to a directory"))?;
        let missing = || io::Error::other(format!("a hard link to {}, which is not there", target.display()));
        let above = self.root.find(above, true)?.ok_or_else(missing)?;
        crate::root::remove(parent, name, 0)?;
        Ok(rfs::linkat(&above.fd, last, parent, name, AtFlags::empty())?)
    }
}

/// Some writers leave the owner blank, which everyone reads as root.
fn number(number: io::Result<u64>, field: &[u8]) -> io::Result<u64> {
    match number {
        Err(_) if field.iter().all(|b| matches!(b, 0 | b' ')) => Ok(0),
        other => other,
    }
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                found.push((name.to_vec(), extension.value_bytes().to_vec()));
            }
        }
    }
    found.sort();
    Ok(found)
}
