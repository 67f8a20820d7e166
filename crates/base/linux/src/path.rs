//! Opens and makes files below a directory that somebody hostile may be changing meanwhile.
//!
//! Every step is an openat2(2) from a descriptor: in `Scope::Root` links and `..` are resolved as if the directory
//! were `/`; in `Scope::Beneath` whatever leads out of it is refused (EXDEV). Magic links are never followed.

use crate::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// How far a name may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The directory is the root of everything, as after chroot.
    Root,
    /// Nothing may lead out of the directory, not even on the way.
    Beneath,
    /// As `Beneath`, and there may be no link at all.
    NoLinks,
}

impl Scope {
    fn flags(self) -> ResolveFlags {
        ResolveFlags::NO_MAGICLINKS
            | match self {
                Scope::Root => ResolveFlags::IN_ROOT,
                Scope::Beneath => ResolveFlags::BENEATH,
                Scope::NoLinks => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            }
    }
}

/// A directory to resolve names in.
#[derive(Clone, Copy, Debug)]
pub struct Dir<'fd> {
    fd: BorrowedFd<'fd>,
    scope: Scope,
}

impl<'fd> Dir<'fd> {
    pub fn new(fd: &'fd impl AsFd, scope: Scope) -> Self {
        Self { fd: fd.as_fd(), scope }
    }

    /// Opens what is there. `path` may begin with a slash: it is taken from this directory all the same.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.try_open(&lexical(path), flags).context(|| format!("open {}", path.display()))
    }

    fn try_open(&self, relative: &Path, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        let name = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        // EAGAIN: something was renamed while `..` was resolved; the kernel asks to try again.
        for _ in 0..16 {
            match rustix::fs::openat2(self.fd, name, flags | OFlags::CLOEXEC, Mode::empty(), self.scope.flags()) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a directory (O_PATH) and makes what is missing of it, with this mode.
    pub fn make_dir(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let path = lexical(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.try_open(&path, flags) {
            Err(Errno::NOENT) => {}
            other => return other.context(|| format!("open directory {}", path.display())),
        }
        let mut current = PathBuf::new();
        let mut fd = self.open(&current, flags)?;
        for part in path.iter() {
            current.push(part);
            fd = match self.try_open(&current, flags) {
                Err(Errno::NOENT) => self.make_one(&fd, part, &current, mode)?,
                other => other.context(|| format!("open directory {}", current.display()))?,
            };
        }
        Ok(fd)
    }

    fn make_one(&self, parent: &OwnedFd, name: &OsStr, full: &Path, mode: u32) -> Result<OwnedFd> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::new(format!("create directory {}", full.display()), e)),
        }
        self.try_open(full, OFlags::PATH | OFlags::DIRECTORY).context(|| format!("open directory {}", full.display()))
    }

    /// Opens a file (O_PATH), making it empty, and the directories above it, when it is not there.
    pub fn make_file(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let path = lexical(path);
        match self.try_open(&path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.context(|| format!("open {}", path.display())),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::invalid(format!("create file {}", path.display()), "it names the directory itself"));
        };
        let parent = self.make_dir(parent, 0o755)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::new(format!("create file {}", path.display()), e)),
        }
        self.try_open(&path, OFlags::PATH).context(|| format!("open {}", path.display()))
    }
}

/// Opens a directory of the host for resolving names in it.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open directory {}", path.display()))
}

/// The path relative, without `.`, with `..` taken back by its letters and never above the start.
pub fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_in_the_root_and_are_refused_beneath() {
        let temp = tempfile::tempdir().unwrap();
        symlink("/etc", temp.path().join("out")).unwrap();
        symlink("../../../..", temp.path().join("up")).unwrap();
        let fd = open_directory(temp.path()).unwrap();
        let beneath = Dir::new(&fd, Scope::Beneath);
        for name in ["out", "up", "out/passwd", "up/etc"] {
            let error = beneath.open(Path::new(name), OFlags::PATH).unwrap_err();
            assert_eq!(error.errno(), Some(libc::EXDEV), "{name}: {error}");
        }
        Dir::new(&fd, Scope::Root).make_dir(Path::new("/up/made/deep"), 0o755).unwrap();
        assert!(temp.path().join("made/deep").is_dir());
        assert!(Dir::new(&fd, Scope::Root).open(Path::new("out"), OFlags::PATH).is_err());
    }

    #[test]
    fn files_are_made_with_the_directories_above_them() {
        let temp = tempfile::tempdir().unwrap();
        let fd = open_directory(temp.path()).unwrap();
        Dir::new(&fd, Scope::Root).make_file(Path::new("/a/b/../c.txt"), 0o644).unwrap();
        assert!(temp.path().join("a/c.txt").is_file());
    }
}
