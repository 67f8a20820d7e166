//! Copies files in and out of containers, whether they run or not. Every name is resolved within the container's root
//! by the kernel (openat2), never by us: a link that changes meanwhile leads nowhere else (CVE-2018-15664).

use super::record::{Record, Status};
use super::{tar_in, tar_out};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use pintle_linux::mount::{Overlay, Tree};
use pintle_linux::path::{Dir, Scope, lexical};
use rustix::fs::{AtFlags, FileType, OFlags};
use serde::Serialize;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a path in a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PathStat {
    pub name: String,
    pub size: u64,
    /// In Go's form: the type in the upper bits.
    pub mode: u32,
    pub mtime: String,
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// The root of a container's files, open.
pub(crate) struct Root {
    fd: OwnedFd,
    /// Keeps what is mounted for the time of the copy.
    _tree: Option<Tree>,
}

/// Where something of a container is, ready to be read.
pub struct Source {
    root: Root,
    path: PathBuf,
    pub stat: PathStat,
}

impl Root {
    fn of(record: &Record) -> Result<Self> {
        if record.state.status == Status::Running || record.state.status == Status::Paused {
            let path = PathBuf::from(format!("/proc/{}/root", record.state.pid));
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&path, flags, rustix::fs::Mode::empty());
            return fd.map(|fd| Self { fd, _tree: None }).map_err(|e| DockerError::io("open the container's root", e));
        }
        let layer = &record.layer;
        let tree = if layer.lower_dirs.is_empty() {
            Tree::clone_of_path(&layer.upper, false)
        } else {
            super::start::make_mountable(layer);
            Overlay { lower: &layer.lower_dirs, upper: &layer.upper, work: &layer.work, volatile: false }.tree()
        };
        let tree = tree.map_err(|e| DockerError::io("mount the container's files", e))?;
        let fd = tree.as_fd().try_clone_to_owned().map_err(|e| DockerError::io("open the container's root", e))?;
        Ok(Self { fd, _tree: Some(tree) })
    }

    /// The root that a path belongs to: that of a volume when it is below one and nothing runs.
    fn of_path(record: &Record, path: &Path) -> Result<(Self, PathBuf)> {
        let running = matches!(record.state.status, Status::Running | Status::Paused);
        let inside = |m: &&super::KeptMount| {
            path.starts_with(&m.point.destination) && !matches!(m.point.kind.as_str(), "tmpfs" | "image")
        };
        let below = record.mounts.iter().filter(inside).max_by_key(|m| m.point.destination.len());
        match below.filter(|_| !running) {
            Some(kept) => {
                let fd = pintle_linux::path::open_directory(&Path::new(&kept.point.source).join(&kept.sub_path));
                let fd = fd.map_err(|e| DockerError::io("open a volume", e))?;
                let rest = path.strip_prefix(&kept.point.destination).unwrap_or(path);
                Ok((Self { fd, _tree: None }, Path::new("/").join(rest)))
            }
            None => Ok((Self::of(record)?, path.to_owned())),
        }
    }

    pub fn dir(&self) -> Dir<'_> {
        Dir::new(&self.fd, Scope::Root)
    }
}

impl Daemon {
    /// Somebody reads a path of a container (`archive-path`), or has written to one (`extract-to-dir`).
    pub fn note_copy(&self, id: &str, action: &str) {
        if let Ok(container) = self.container(id) {
            self.tell_of(&container, action, &[]);
        }
    }
}

/// Finds a path of the container that a record tells of, and that the client calls `wanted`. Blocks.
///
/// # Errors
/// 404 when it is not there.
pub fn path_in(record: &Record, wanted: &str, path: &str) -> Result<Source> {
    let missing = || DockerError::not_found(format!("Could not find the file {path} in container {wanted}"));
    let clean = Path::new("/").join(lexical(Path::new(path)));
    let (root, inside) = Root::of_path(record, &clean)?;
    let stat = stat(&root, &inside, path).ok_or_else(missing)?;
    Ok(Source { root, path: inside, stat })
}

/// Unpacks an archive, compressed or not, into a directory of the container that a record tells of. Blocks on the disk
/// and on `archive`.
///
/// # Errors
/// 404 when the directory is not there, 403 when nothing may be written.
pub fn extract_in(
    record: &Record,
    wanted: &str,
    path: &str,
    archive: impl Read + Send,
    options: tar_in::ExtractOptions,
) -> Result<()> {
    let clean = Path::new("/").join(lexical(Path::new(path)));
    refuse_read_only(record, &clean)?;
    let (root, inside) = Root::of_path(record, &clean)?;
    let missing = || DockerError::not_found(format!("Could not find the file {path} in container {wanted}"));
    let target = root.dir().open(&inside, OFlags::PATH).map_err(|_| missing())?;
    let kind = rustix::fs::fstat(&target).map_err(|e| DockerError::io("look at the target", e))?;
    if FileType::from_raw_mode(kind.st_mode) != FileType::Directory {
        return Err(DockerError::invalid("extraction point is not a directory"));
    }
    tar_in::extract(&root, &inside, archive, options)
}

impl Source {
    /// Writes it as a tar stream whose first name is the path's last part. Blocks.
    pub fn write(&self, target: impl Write) -> std::io::Result<()> {
        tar_out::write(&self.root, &self.path, &self.stat.name, target)
    }
}

fn refuse_read_only(record: &Record, path: &Path) -> Result<()> {
    let inside = |m: &&super::KeptMount| path.starts_with(&m.point.destination);
    let mount = record.mounts.iter().filter(inside).max_by_key(|m| m.point.destination.len());
    match mount {
        Some(m) if !m.point.writable => Err(DockerError::new(403, "mounted volume is marked read-only")),
        None if record.host.readonly_rootfs => Err(DockerError::new(403, "container rootfs is marked read-only")),
        _ => Ok(()),
    }
}

/// The last part of a path itself, links not followed.
pub(super) fn open_parent(root: &Root, path: &Path) -> pintle_linux::Result<(OwnedFd, PathBuf)> {
    let relative = lexical(path);
    let parent = relative.parent().unwrap_or(Path::new(""));
    let fd = root.dir().open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let name = relative.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
    Ok((fd, name))
}

fn stat(root: &Root, path: &Path, asked: &str) -> Option<PathStat> {
    let (parent, name) = open_parent(root, path).ok()?;
    let follow = asked.ends_with('/') || asked.ends_with("/.");
    let found = match follow {
        true => rustix::fs::fstat(root.dir().open(path, OFlags::PATH).ok()?).ok()?,
        false => rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?,
    };
    let kind = FileType::from_raw_mode(found.st_mode);
    let link_target = match kind {
        FileType::Symlink => resolved(&parent, &name, path),
        _ => String::new(),
    };
    let last = lexical(Path::new(asked));
    // The contents of a folder are asked for, and named, by a dot.
    let shown = match asked.ends_with("/.") || asked == "." {
        true => ".".to_owned(),
        false => last.file_name().map_or_else(|| "/".to_owned(), |n| n.to_string_lossy().into_owned()),
    };
    let nanos = found
        .st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::try_from(found.st_mtime_nsec).unwrap_or_default());
    Some(PathStat {
        name: shown,
        size: u64::try_from(found.st_size).unwrap_or_default(),
        mode: go_mode(found.st_mode),
        mtime: super::times::rfc3339(nanos),
        link_target,
    })
}

/// Where a link leads, as an absolute path of the container.
fn resolved(parent: &OwnedFd, name: &Path, path: &Path) -> String {
    let target = rustix::fs::readlinkat(parent, name, Vec::new()).unwrap_or_default();
    let target = PathBuf::from(target.to_string_lossy().into_owned());
    let absolute = path.parent().unwrap_or(Path::new("/")).join(target);
    format!("/{}", lexical(&absolute).display())
}

/// The bits of Go's `os.FileMode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => (1 << 26) | (1 << 21),
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let bit = |unix: u32, go: u32| if mode & unix == 0 { 0 } else { 1 << go };
    kind | (mode & 0o777) | bit(0o4000, 23) | bit(0o2000, 22) | bit(0o1000, 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o040_755), (1 << 31) | 0o755);
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
    }
}
