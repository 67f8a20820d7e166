//! Copies what layers are together into one directory: for machines where overlayfs is refused.

use crate::tree::{Below, MAX_DEPTH, lookup, names_below};
use crate::{At, ImageError, Result};
use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Bytes of an attribute's value, and of all names (listxattr(2)).
const MAX_ATTRIBUTES: usize = 64 << 10;

/// Fills an empty directory with what shows of layers, topmost first. They are the store's own and do not change.
pub(crate) fn fill(target: &Path, layers: &[PathBuf]) -> Result<()> {
    let mut copy = Copy::default();
    copy.children(target, layers, 0)?;
    let Some(top) = layers.first() else { return Ok(()) };
    let meta = fs::metadata(top).at("read", top)?;
    properties(top, &meta, target)
}

#[derive(Default)]
struct Copy {
    /// Where files with several names were copied to, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    fn children(&mut self, target: &Path, directories: &[PathBuf], depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let shown = target.display();
            return Err(ImageError::Invalid(format!("{shown} is deeper than {MAX_DEPTH} directories")));
        }
        for name in names_below(directories)? {
            if let Some(found) = lookup(directories, &name)? {
                self.entry(&found, &target.join(name), depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, found: &Below, target: &Path, depth: usize) -> Result<()> {
        let (source, meta) = (&found.path, &found.meta);
        let identity = (meta.dev(), meta.ino());
        if !meta.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.linked.get(&identity) {
                return fs::hard_link(first, target).at("link", target);
            }
            self.linked.insert(identity, target.to_owned());
        }
        match FileType::from_raw_mode(meta.mode()) {
            FileType::Directory => {
                fs::create_dir(target).at("create", target)?;
                self.children(target, &found.directories, depth + 1)?;
            }
            FileType::RegularFile => content(source, target)?,
            FileType::Symlink => {
                let to = fs::read_link(source).at("read", source)?;
                symlink(to, target).at("create", target)?;
            }
            kind => rfs::mknodat(CWD, target, kind, Mode::from_raw_mode(0o600), meta.rdev()).at("create", target)?,
        }
        properties(source, meta, target)
    }
}

/// The bytes of a file: shared with the first where the filesystem can do so.
fn content(source: &Path, target: &Path) -> Result<()> {
    let mut from = File::open(source).at("open", source)?;
    let mut to = File::create_new(target).at("create", target)?;
    if rfs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    io::copy(&mut from, &mut to).at("write", target).map(drop)
}

/// Owner first: changing it takes special bits and capabilities away. Times last.
fn properties(source: &Path, meta: &fs::Metadata, target: &Path) -> Result<()> {
    let (user, group) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    rfs::chownat(CWD, target, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).at("change", target)?;
    if !meta.is_symlink() {
        let permissions = fs::Permissions::from_mode(meta.mode() & 0o7777);
        fs::set_permissions(target, permissions).at("change", target)?;
    }
    attributes(source, target)?;
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    rfs::utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW).at("change", target)
}

fn attributes(source: &Path, target: &Path) -> Result<()> {
    let mut names = vec![0; MAX_ATTRIBUTES];
    let count = match rfs::llistxattr(source, &mut names[..]) {
        Ok(count) => count,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(e) => return Err(io::Error::from(e)).at("read", source),
    };
    let own = names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    // What is written for an overlay is no attribute of the file.
    for name in own.filter(|name| !name.starts_with(b"trusted.overlay.")) {
        let mut value = vec![0; MAX_ATTRIBUTES];
        let size = rfs::lgetxattr(source, name, &mut value[..]).at("read", source)?;
        rfs::lsetxattr(target, name, &value[..size], XattrFlags::empty()).at("change", target)?;
    }
    Ok(())
}
