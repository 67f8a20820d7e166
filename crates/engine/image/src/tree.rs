//! Compares a container's own layer with the layers below it, and walks what they are together.
//!
//! The topmost directory belongs to a container that may be running: everything in it is reached from one descriptor
//! without following links. The layers below are the store's own and do not change.

use crate::{At, ImageError, Result};
use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories within directories that are looked into.
pub(crate) const MAX_DEPTH: usize = 256;
const OPAQUE: &str = "trusted.overlay.opaque";

/// What became of a path; the numbers are Docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

/// One line of `docker diff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the root: `/etc/motd`.
    pub path: String,
    pub kind: ChangeKind,
}

/// What a layer's archive says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Put,
    Whiteout,
    /// The directory was written just before: what is below it is hidden.
    Opaque,
    /// Hidden by an opaque directory: for people only.
    Hidden,
}

/// One path of a container's own layer.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// Below the root.
    pub(crate) path: PathBuf,
    pub(crate) action: Action,
    /// Nothing when it was copied up but is as before.
    pub(crate) kind: Option<ChangeKind>,
}

/// What a container's own directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// What differs from the layers below, as overlayfs writes it.
    Changes,
    /// Everything: what it does not have, though a layer does, was removed.
    Whole,
}

/// All that differs in a layer.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) items: Vec<Planned>,
    /// Mount points that the engine made, deepest last: they are no part of the container's work.
    pub(crate) generated: Vec<PathBuf>,
}

impl Plan {
    /// Bytes and files that were written; what has gone meanwhile is left out.
    pub(crate) fn usage(&self, upper: &Path) -> (u64, u64) {
        let put = self.items.iter().filter(|item| item.action == Action::Put);
        let found = put.filter_map(|item| fs::symlink_metadata(upper.join(&item.path)).ok());
        found.fold((0, 0), |(bytes, files), meta| (bytes + meta.blocks() * 512, files + 1))
    }
}

/// The parts of an entry's metadata whose change is a change of the entry.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    /// Of what is no directory: size and time.
    content: Option<(u64, i64, i64)>,
}

impl Facts {
    fn of_stat(stat: &rfs::Stat) -> Self {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        let content = (!directory).then_some((stat.st_size.unsigned_abs(), stat.st_mtime, nanos));
        Self { mode: stat.st_mode, owner: (stat.st_uid, stat.st_gid), device: stat.st_rdev, content }
    }

    fn of_metadata(meta: &fs::Metadata) -> Self {
        let content = (!meta.is_dir()).then_some((meta.size(), meta.mtime(), meta.mtime_nsec()));
        Self { mode: meta.mode(), owner: (meta.uid(), meta.gid()), device: meta.rdev(), content }
    }
}

/// What the layers below have under a name.
pub(crate) struct Below {
    pub(crate) meta: fs::Metadata,
    /// Where the topmost one is.
    pub(crate) path: PathBuf,
    /// The directories that show through, topmost first; empty when it is no directory.
    pub(crate) directories: Vec<PathBuf>,
}

fn is_whiteout(meta: &fs::Metadata) -> bool {
    FileType::from_raw_mode(meta.mode()) == FileType::CharacterDevice && meta.rdev() == 0
}

fn stat_is_whiteout(stat: &rfs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque_path(path: &Path) -> bool {
    let mut value = [0_u8; 1];
    rfs::lgetxattr(path, OPAQUE, &mut value).is_ok_and(|n| n == 1) && value == *b"y"
}

pub(crate) fn is_opaque(directory: impl AsFd) -> bool {
    let mut value = [0_u8; 1];
    rfs::fgetxattr(directory, OPAQUE, &mut value).is_ok_and(|n| n == 1) && value == *b"y"
}

/// Looks a name up in directories that lie on each other, topmost first.
pub(crate) fn lookup(directories: &[PathBuf], name: &OsStr) -> Result<Option<Below>> {
    let mut found: Option<Below> = None;
    for directory in directories {
        let path = directory.join(name);
        let meta = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.at("read", &path)?,
        };
        if is_whiteout(&meta) || (found.is_some() && !meta.is_dir()) {
            break;
        }
        let (directory, opaque) = (meta.is_dir(), is_opaque_path(&path));
        let below = found.get_or_insert_with(|| Below { meta, path: path.clone(), directories: Vec::new() });
        if !directory {
            break;
        }
        below.directories.push(path);
        if opaque {
            break;
        }
    }
    Ok(found)
}

/// The names in directories that lie on each other, whether they show or not.
pub(crate) fn names_below(directories: &[PathBuf]) -> Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for directory in directories {
        for entry in fs::read_dir(directory).at("list", directory)? {
            names.insert(entry.at("list", directory)?.file_name());
        }
    }
    Ok(names)
}

/// A container's own layer.
pub(crate) struct Upper {
    root: OwnedFd,
    path: PathBuf,
}

impl Upper {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rfs::openat(CWD, path, flags, Mode::empty()).at("open", path)?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Opens a directory below the root, through no link.
    pub(crate) fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        rfs::openat2(&self.root, name, flags, Mode::empty(), resolve).at("open", self.path.join(path))
    }

    /// The names in a directory, in order.
    pub(crate) fn names(&self, directory: &OwnedFd, path: &Path) -> Result<BTreeSet<OsString>> {
        let list = rfs::Dir::read_from(directory).at("list", self.path.join(path))?;
        let mut names = BTreeSet::new();
        for entry in list {
            let entry = entry.at("list", self.path.join(path))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }
}

/// Compares a container's own layer with the layers below it, topmost first.
pub(crate) fn plan(upper: &Path, lower: &[PathBuf], form: Form) -> Result<Plan> {
    let upper = Upper::open(upper)?;
    let mut comparison = Comparison { upper, form, plan: Plan::default() };
    comparison.directory(Path::new(""), lower, false, 0)?;
    Ok(comparison.plan)
}

/// Where an entry is found.
struct Place<'a> {
    parent: &'a OwnedFd,
    name: &'a OsStr,
    hidden: bool,
    depth: usize,
}

struct Comparison {
    upper: Upper,
    form: Form,
    plan: Plan,
}

impl Comparison {
    /// Compares one directory; hidden means that an opaque one above it hides what is below.
    fn directory(&mut self, path: &Path, lower: &[PathBuf], hidden: bool, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(ImageError::Invalid(format!("/{} is deeper than {MAX_DEPTH} directories", path.display())));
        }
        let directory = self.upper.directory(path)?;
        let mut names = self.upper.names(&directory, path)?;
        let opaque = is_opaque(&directory);
        if opaque && !hidden && !lower.is_empty() {
            self.plan.items.push(Planned { path: path.to_owned(), action: Action::Opaque, kind: None });
        }
        let hidden = hidden || opaque;
        if hidden {
            self.hidden(path, lower, &names)?;
        }
        if self.form == Form::Whole {
            names.extend(names_below(lower)?);
        }
        for name in names {
            let child = path.join(&name);
            let below = lookup(lower, &name)?;
            let Ok(stat) = rfs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                // Otherwise a running container has removed it just now.
                if self.form == Form::Whole && below.is_some() {
                    let kind = Some(ChangeKind::Deleted);
                    self.plan.items.push(Planned { path: child, action: Action::Whiteout, kind });
                }
                continue;
            };
            self.entry(Place { parent: &directory, name: &name, hidden, depth }, child, &stat, below)?;
        }
        Ok(())
    }

    /// What an opaque directory hides and does not have itself.
    fn hidden(&mut self, path: &Path, lower: &[PathBuf], names: &BTreeSet<OsString>) -> Result<()> {
        for name in names_below(lower)?.difference(names) {
            if lookup(lower, name)?.is_some() {
                let kind = Some(ChangeKind::Deleted);
                self.plan.items.push(Planned { path: path.join(name), action: Action::Hidden, kind });
            }
        }
        Ok(())
    }

    fn entry(&mut self, place: Place<'_>, path: PathBuf, stat: &rfs::Stat, below: Option<Below>) -> Result<()> {
        let Place { parent, name, hidden, depth } = place;
        if stat_is_whiteout(stat) {
            if below.is_some() && !hidden {
                let kind = Some(ChangeKind::Deleted);
                self.plan.items.push(Planned { path, action: Action::Whiteout, kind });
            }
            return Ok(());
        }
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if below.is_none() && !directory && is_generated(parent, name, &path, stat) {
            self.plan.generated.push(path);
            return Ok(());
        }
        let kind = match &below {
            None => Some(ChangeKind::Added),
            Some(below) if Facts::of_metadata(&below.meta) != Facts::of_stat(stat) => Some(ChangeKind::Modified),
            Some(below) if capability_differs(below, parent, name, directory) => Some(ChangeKind::Modified),
            Some(_) => None,
        };
        if self.form == Form::Whole && kind.is_none() && !directory {
            return Ok(());
        }
        let (index, generated) = (self.plan.items.len(), self.plan.generated.len());
        self.plan.items.push(Planned { path: path.clone(), action: Action::Put, kind });
        if !directory {
            return Ok(());
        }
        let lower = below.map(|b| b.directories).unwrap_or_default();
        self.directory(&path, &lower, hidden, depth + 1)?;
        self.settle(index, generated, &path, hidden);
        Ok(())
    }

    /// A directory that was copied up only for what is in it changed with that, or is none of the container's work.
    fn settle(&mut self, index: usize, generated: usize, path: &Path, hidden: bool) {
        let empty = self.plan.items.len() == index + 1;
        let kind = &mut self.plan.items[index].kind;
        let for_mounts = empty && *kind == Some(ChangeKind::Added) && is_mount_directory(path);
        if for_mounts {
            self.plan.items.pop();
            self.plan.generated.insert(generated, path.to_owned());
        } else if empty && kind.is_none() {
            // Below an opaque directory it has to be written all the same.
            if !hidden {
                self.plan.items.pop();
            }
        } else {
            kind.get_or_insert(ChangeKind::Modified);
        }
    }
}

/// Directories that are made in every container for what is mounted there.
fn is_mount_directory(path: &Path) -> bool {
    let names = ["dev", "dev/pts", "dev/shm", "dev/mqueue", "etc", "proc", "sys"];
    names.iter().any(|name| Path::new(name) == path)
}

/// Whether an entry is an empty mount point that is made in every container, or the link beside them.
fn is_generated(parent: &OwnedFd, name: &OsStr, path: &Path, stat: &rfs::Stat) -> bool {
    let files = ["etc/hosts", "etc/hostname", "etc/resolv.conf", "dev/console", ".dockerenv", "dev/termination-log"];
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::RegularFile {
        return stat.st_size == 0 && files.iter().any(|f| Path::new(f) == path);
    }
    let links = |target: &str| {
        rfs::readlinkat(parent, name, Vec::new()).is_ok_and(|found| found.as_bytes() == target.as_bytes())
    };
    kind == FileType::Symlink && path == Path::new("etc/mtab") && links("/proc/mounts")
}

fn capability_differs(below: &Below, parent: &OwnedFd, name: &OsStr, directory: bool) -> bool {
    if directory || !below.meta.is_file() {
        return false;
    }
    const CAPABILITY: &str = "security.capability";
    let mut value = [0_u8; 64];
    let before = rfs::lgetxattr(&below.path, CAPABILITY, &mut value).map(|n| value[..n].to_vec()).ok();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rfs::openat(parent, name, flags, Mode::empty()) else { return false };
    before != rfs::fgetxattr(&file, CAPABILITY, &mut value).map(|n| value[..n].to_vec()).ok()
}

/// Bytes of all regular files below a directory; a file with several names counts once.
pub(crate) fn file_bytes(directory: &Path) -> Result<u64> {
    let (mut total, mut seen, mut waiting) = (0, HashSet::new(), vec![directory.to_owned()]);
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).at("list", &next)? {
            let entry = entry.at("list", &next)?;
            let meta = entry.metadata().at("read", entry.path())?;
            if meta.is_dir() {
                waiting.push(entry.path());
            } else if meta.is_file() && (meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino()))) {
                total += meta.size();
            }
        }
    }
    Ok(total)
}
