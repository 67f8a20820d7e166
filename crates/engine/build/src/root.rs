//! A directory as the root of a file system: names and links in it never lead out of it.

use pintle_linux::path::lexical;
use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// An opened root.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// What the kernel calls the root, before the names of what is in it.
    base: PathBuf,
}

/// Something in a root.
#[derive(Debug)]
pub struct Found {
    /// By path only (`O_PATH`).
    pub fd: OwnedFd,
    /// Where it is, links followed, without a leading slash.
    pub path: PathBuf,
    pub stat: Stat,
}

impl Found {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Opens it for reading; it must be a file or directory.
    pub fn read(&self) -> io::Result<OwnedFd> {
        // Through the descriptor, so that it is the same file.
        let name = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(rfs::open(name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?)
    }

    pub fn file(&self) -> io::Result<File> {
        self.read().map(File::from)
    }
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self::of(rfs::openat(CWD, path, flags, Mode::empty())?)
    }

    pub fn of(fd: OwnedFd) -> io::Result<Self> {
        let base = name_of(fd.as_fd())?;
        Ok(Self { fd, base })
    }

    fn openat(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed while `..` was resolved; the kernel asks to try again.
        for _ in 0..16 {
            match rfs::openat2(&self.fd, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// What a path leads to; a link at its end is followed when `follow` is said.
    pub fn find(&self, path: &Path, follow: bool) -> io::Result<Option<Found>> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let fd = match self.openat(&lexical(path), flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            other => other?,
        };
        let name = name_of(fd.as_fd())?;
        let path = name.strip_prefix(&self.base).map_err(|_| io::Error::other("it is not below its root"))?.to_owned();
        let stat = rfs::fstat(&fd)?;
        Ok(Some(Found { fd, path, stat }))
    }

    /// Opens a directory, and makes what is missing of it; `made` hears of each that was. Where a link leads to nothing,
    /// what it names is made.
    pub fn make_directory(
        &self,
        path: &Path,
        mut made: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        let mut path = lexical(path);
        for _ in 0..MAX_LINKS {
            match self.make_until_link(&path, &mut made)? {
                Made::Directory(fd) => return Ok(fd),
                Made::Leads(to) => path = to,
            }
        }
        Err(Errno::LOOP.into())
    }

    fn make_until_link(&self, path: &Path, made: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<Made> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.openat(path, flags) {
            Err(Errno::NOENT) => {}
            other => return Ok(Made::Directory(other?)),
        }
        let mut current = PathBuf::new();
        let mut fd = self.openat(&current, flags)?;
        let mut rest = path.components();
        while let Some(part) = rest.next().map(|part| part.as_os_str()) {
            current.push(part);
            fd = match self.openat(&current, flags) {
                Err(Errno::NOENT) => match rfs::mkdirat(&fd, part, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) => return self.led(&fd, part, rest.as_path()),
                    other => {
                        other?;
                        let new = self.openat(&current, OFlags::RDONLY | OFlags::DIRECTORY)?;
                        // The process's mask does not count.
                        rfs::fchmod(&new, Mode::from_raw_mode(0o755))?;
                        made(new.as_fd())?;
                        new
                    }
                },
                other => other?,
            };
        }
        Ok(Made::Directory(fd))
    }

    /// Where a link leads that leads to nothing, with what comes behind it.
    fn led(&self, parent: &OwnedFd, name: &std::ffi::OsStr, rest: &Path) -> io::Result<Made> {
        let target = rfs::readlinkat(parent, name, Vec::new())?;
        let above = name_of(parent.as_fd())?;
        let above = above.strip_prefix(&self.base).map_err(|_| io::Error::other("it is not below its root"))?;
        let target = above.join(OsString::from_vec(target.into_bytes()));
        Ok(Made::Leads(lexical(&target.join(rest))))
    }

    /// Removes what a path names, with all below it. Nothing there is fine.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let path = lexical(path);
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Ok(()) };
        match self.openat(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            parent => remove(parent?.as_fd(), name, 0),
        }
    }
}

/// Links that may lead to each other.
const MAX_LINKS: usize = 40;

/// What became of a directory that was to be made.
enum Made {
    Directory(OwnedFd),
    Leads(PathBuf),
}

fn name_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let name = rfs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(name.into_bytes())))
}

/// Directories that may be in each other.
const MAX_DEPTH: usize = 1024;

/// A directory that is open, deep within others.
pub(crate) fn check_depth(depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("more than {MAX_DEPTH} directories in each other")));
    }
    Ok(())
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rfs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes an entry of a directory, with all below it. Nothing there is fine.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &std::ffi::OsStr, depth: usize) -> io::Result<()> {
    check_depth(depth)?;
    match rfs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = rfs::openat(parent, name, flags, Mode::empty())?;
    for inner in names(&inside)? {
        remove(inside.as_fd(), &inner, depth + 1)?;
    }
    Ok(rfs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out() {
        let temp = tempfile::tempdir().unwrap();
        let inside = temp.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(temp.path().join("secret"), "s").unwrap();
        symlink("../secret", inside.join("up")).unwrap();
        symlink("/secret", inside.join("absolute")).unwrap();
        symlink("/real", inside.join("link")).unwrap();
        std::fs::create_dir(inside.join("real")).unwrap();
        std::fs::write(inside.join("real/f"), "x").unwrap();
        let root = Root::open(&inside).unwrap();
        for out in ["up", "absolute", "../secret", "/../secret"] {
            assert!(root.find(Path::new(out), true).unwrap().is_none(), "{out}");
        }
        assert_eq!(root.find(Path::new("/link/f"), true).unwrap().unwrap().path, Path::new("real/f"));
        assert_eq!(root.find(Path::new("link"), false).unwrap().unwrap().kind(), FileType::Symlink);
        let mut made = 0;
        let count = |_: BorrowedFd<'_>| {
            made += 1;
            Ok(())
        };
        root.make_directory(Path::new("/link/a/b"), count).unwrap();
        assert_eq!((made, inside.join("real/a/b").is_dir()), (2, true));
        root.remove(Path::new("real")).unwrap();
        root.remove(Path::new("real/none")).unwrap();
        assert!(!inside.join("real").exists());
    }
}
