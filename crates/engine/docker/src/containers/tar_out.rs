//! Writes a part of a container's files as a tar stream, from directory to directory by descriptors.

use super::copy::{Root, open_parent};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// Directories within directories, and files in all.
const MAX_DEPTH: usize = 256;
const MAX_FILES: usize = 1 << 20;

struct Writer<W: Write> {
    builder: Builder<W>,
    left: usize,
}

pub(super) fn write(root: &Root, path: &Path, name: &str, target: impl Write) -> io::Result<()> {
    let (parent, last) = open_parent(root, path).map_err(io::Error::other)?;
    let mut writer = Writer { builder: Builder::new(target), left: MAX_FILES };
    let shown = Path::new(name.trim_start_matches('/'));
    let shown = if shown.as_os_str().is_empty() { Path::new(".") } else { shown };
    writer.add(parent.as_fd(), &last, shown, 0)?;
    writer.builder.finish()?;
    writer.builder.get_mut().flush()
}

impl<W: Write> Writer<W> {
    fn add(&mut self, parent: BorrowedFd<'_>, name: &Path, shown: &Path, depth: usize) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("too many files to copy"))?;
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories are too deep to copy"));
        }
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // It has gone meanwhile.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let mut header = Header::new_gnu();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
        header.set_size(0);
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::RegularFile => return self.file(parent, name, shown, header),
            FileType::Directory => return self.directory(parent, name, shown, header, depth),
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                let target = Path::new(std::ffi::OsStr::new(target.to_str().map_err(io::Error::other)?));
                return self.link(header, shown, target);
            }
            FileType::CharacterDevice => header.set_entry_type(EntryType::Char),
            FileType::BlockDevice => header.set_entry_type(EntryType::Block),
            FileType::Fifo => header.set_entry_type(EntryType::Fifo),
            // A socket is nothing without who listens on it.
            _ => return Ok(()),
        }
        if kind != FileType::Fifo {
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
        }
        self.append(header, shown.as_os_str().as_bytes(), io::empty())
    }

    /// Writes one entry under exactly this name: a leading `./`, which [`Builder::append_data`] would drop, is what
    /// `docker cp` knows the contents of a folder by.
    fn append(&mut self, mut header: Header, name: &[u8], content: impl Read) -> io::Result<()> {
        let place = &mut header.as_old_mut().name;
        if name.len() > place.len() {
            self.long(b'L', name)?;
        }
        let fits = name.len().min(place.len());
        place[..fits].copy_from_slice(&name[..fits]);
        header.set_cksum();
        self.builder.append(&header, content)
    }

    fn link(&mut self, mut header: Header, shown: &Path, target: &Path) -> io::Result<()> {
        let target = target.as_os_str().as_bytes();
        let place = &mut header.as_old_mut().linkname;
        if target.len() > place.len() {
            self.long(b'K', target)?;
        }
        let fits = target.len().min(place.len());
        place[..fits].copy_from_slice(&target[..fits]);
        self.append(header, shown.as_os_str().as_bytes(), io::empty())
    }

    /// GNU's entry that holds what is too long for the next one's header: its name (`L`) or its link's target (`K`).
    fn long(&mut self, kind: u8, text: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        let name = b"././@LongLink";
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(text.len() as u64 + 1);
        header.set_cksum();
        self.builder.append(&header, text.chain(&b"\0"[..]))
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &Path, shown: &Path, mut header: Header) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
        let size = file.metadata()?.len();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        // One that shrinks while it is read is filled up with zeros, so that the archive stays whole.
        let padded = file.take(size).chain(io::repeat(0)).take(size);
        self.append(header, shown.as_os_str().as_bytes(), padded)
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &Path,
        shown: &Path,
        mut header: Header,
        depth: usize,
    ) -> io::Result<()> {
        header.set_entry_type(EntryType::Directory);
        let mut slashed = shown.as_os_str().to_owned();
        slashed.push("/");
        self.append(header, slashed.as_bytes(), io::empty())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(std::os::unix::ffi::OsStringExt::from_vec(name.to_vec()));
            }
        }
        names.sort();
        names.iter().try_for_each(|name: &std::ffi::OsString| {
            self.add(fd.as_fd(), Path::new(name), &shown.join(name), depth + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_are() {
        let long = format!("./{}", "n".repeat(150));
        let target = "t".repeat(120);
        let mut writer = Writer { builder: Builder::new(Vec::new()), left: 0 };
        for name in ["./", "./file", &long] {
            let mut header = Header::new_gnu();
            header.set_size(0);
            writer.append(header, name.as_bytes(), io::empty()).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        writer.link(header, Path::new("./link"), Path::new(&target)).unwrap();
        let bytes = writer.builder.into_inner().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default();
            (entry.path_bytes().into_owned(), link)
        });
        let names = ["./", "./file", &long].map(|name| (name.as_bytes().to_vec(), Vec::new()));
        let expected = [&names[..], &[(b"./link".to_vec(), target.into_bytes())]].concat();
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }
}
