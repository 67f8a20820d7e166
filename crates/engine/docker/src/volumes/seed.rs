//! Fills an empty volume with what the image has at its place, and counts bytes.

use crate::error::{DockerError, Result};
use pintle_runtime::SnapshotMounts;
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// Deeper trees are refused rather than walked.
const MAX_DEPTH: usize = 256;
/// Links that are followed on the way to the place.
const MAX_LINKS: usize = 40;

/// Copies the image's files at `place` into `volume`, when that is an empty directory. Links in the image never lead
/// out of it.
///
/// # Errors
/// When a file cannot be read or written.
pub fn fill(volume: &Path, layer: &SnapshotMounts, place: &str) -> Result<()> {
    let failed = |e: io::Error| DockerError::io(format_args!("copy the image's {place} into a volume"), e);
    if fs::read_dir(volume).map_err(failed)?.next().is_some() {
        return Ok(());
    }
    let view = View::of(layer);
    let Some(place) = view.resolve(place).map_err(failed)? else { return Ok(()) };
    let Some((path, metadata)) = view.look(&place) else { return Ok(()) };
    if !metadata.is_dir() {
        return Ok(());
    }
    let mut links = HashMap::new();
    view.copy_directory(&place, volume, 0, &mut links).map_err(failed)?;
    adorn(&path, volume, &metadata).map_err(failed)
}

/// Layers seen as one tree, the top one first.
struct View {
    layers: Vec<PathBuf>,
}

impl View {
    fn of(layer: &SnapshotMounts) -> Self {
        let upper = [&layer.upper].into_iter().filter(|p| !p.as_os_str().is_empty());
        Self { layers: upper.chain(&layer.lower_dirs).cloned().collect() }
    }

    /// Where something of the tree is. Every part of `inside` but the last is a directory and no link.
    fn look(&self, inside: &Path) -> Option<(PathBuf, Metadata)> {
        for layer in &self.layers {
            let mut path = layer.clone();
            let mut parts = inside.components().peekable();
            if parts.peek().is_none() {
                return fs::symlink_metadata(&path).ok().map(|m| (path, m));
            }
            let mut hidden = false;
            while let Some(part) = parts.next() {
                path.push(part);
                let Ok(metadata) = fs::symlink_metadata(&path) else { break };
                if is_whiteout(&metadata) || (parts.peek().is_some() && !metadata.is_dir()) {
                    return None;
                }
                if parts.peek().is_none() {
                    return Some((path, metadata));
                }
                hidden |= is_opaque(&path);
            }
            if hidden {
                return None;
            }
        }
        None
    }

    /// The place with its links followed within the tree; nothing when it is not there.
    fn resolve(&self, place: &str) -> io::Result<Option<PathBuf>> {
        let mut wanted: Vec<std::ffi::OsString> =
            Path::new(place).components().rev().map(|c| c.as_os_str().to_owned()).collect();
        let (mut found, mut links) = (PathBuf::new(), 0);
        while let Some(part) = wanted.pop() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => found = PathBuf::new(),
                Some(Component::ParentDir) => drop(found.pop()),
                Some(Component::Normal(name)) => {
                    let next = found.join(name);
                    let Some((path, metadata)) = self.look(&next) else { return Ok(None) };
                    if !metadata.is_symlink() {
                        found = next;
                        continue;
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(None);
                    }
                    let target = fs::read_link(&path)?;
                    wanted.extend(target.components().rev().map(|c| c.as_os_str().to_owned()));
                }
                _ => {}
            }
        }
        Ok(Some(found))
    }

    /// The names in a directory of all layers.
    fn names(&self, inside: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        let mut all = std::collections::BTreeSet::new();
        for layer in &self.layers {
            let path = layer.join(inside);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {}
                _ => continue,
            }
            for entry in fs::read_dir(&path)? {
                all.insert(entry?.file_name());
            }
            if is_opaque(&path) {
                break;
            }
        }
        Ok(all.into_iter().collect())
    }

    fn copy_directory(
        &self,
        inside: &Path,
        to: &Path,
        depth: usize,
        links: &mut HashMap<(u64, u64), PathBuf>,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories are nested too deeply"));
        }
        for name in self.names(inside)? {
            let from = inside.join(&name);
            let Some((path, metadata)) = self.look(&from) else { continue };
            let target = to.join(&name);
            if metadata.is_dir() {
                fs::create_dir(&target)?;
                self.copy_directory(&from, &target, depth + 1, links)?;
                adorn(&path, &target, &metadata)?;
            } else {
                copy_one(&path, &target, &metadata, links)?;
            }
        }
        Ok(())
    }
}

fn copy_one(from: &Path, to: &Path, metadata: &Metadata, links: &mut HashMap<(u64, u64), PathBuf>) -> io::Result<()> {
    if metadata.nlink() > 1 {
        if let Some(first) = links.get(&(metadata.dev(), metadata.ino())) {
            return fs::hard_link(first, to);
        }
        links.insert((metadata.dev(), metadata.ino()), to.to_owned());
    }
    let kind = metadata.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()));
    }
    if kind.is_file() {
        fs::copy(from, to)?;
    } else {
        let node = if kind.is_fifo() {
            rustix::fs::FileType::Fifo
        } else if kind.is_socket() {
            rustix::fs::FileType::Socket
        } else if kind.is_char_device() {
            rustix::fs::FileType::CharacterDevice
        } else {
            rustix::fs::FileType::BlockDevice
        };
        rustix::fs::mknodat(rustix::fs::CWD, to, node, rustix::fs::Mode::from_raw_mode(0o600), metadata.rdev())?;
    }
    adorn(from, to, metadata)
}

/// Owner, permissions, extended attributes and times.
fn adorn(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    copy_attributes(from, to)?;
    let stamp = |seconds, nanos| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps {
        last_access: stamp(metadata.atime(), metadata.atime_nsec()),
        last_modification: stamp(metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(rustix::fs::CWD, to, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::llistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0_u8; 64 << 10];
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        // What the overlay writes for itself is no attribute of the file.
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let name = std::ffi::OsStr::from_bytes(name);
        let size = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        match rustix::fs::lsetxattr(to, name, &value[..size], rustix::fs::XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 4];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]).is_ok_and(|n| &value[..n] == b"y")
}

/// Bytes of all files below, each file once; what cannot be read counts nothing.
pub(super) fn size_of(path: &Path) -> u64 {
    let (mut total, mut waiting, mut seen) = (0, vec![path.to_owned()], std::collections::HashSet::new());
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.nlink() < 2 || seen.insert((metadata.dev(), metadata.ino())) {
                total += metadata.len();
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_volume_is_filled_from_all_layers() {
        let temp = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = temp.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (low, high, upper, volume) = (dir("low"), dir("high"), dir("upper"), dir("volume"));
        fs::create_dir_all(low.join("var/data/sub")).unwrap();
        fs::write(low.join("var/data/a"), "low").unwrap();
        fs::write(low.join("var/data/sub/b"), "b").unwrap();
        fs::hard_link(low.join("var/data/sub/b"), low.join("var/data/sub/c")).unwrap();
        symlink("/var/data", low.join("data")).unwrap();
        symlink("../../../../../../etc", low.join("out")).unwrap();
        fs::create_dir_all(high.join("var/data")).unwrap();
        fs::write(high.join("var/data/a"), "high").unwrap();
        fs::set_permissions(high.join("var/data"), fs::Permissions::from_mode(0o1777)).unwrap();
        let layer = SnapshotMounts { lower_dirs: vec![high, low], upper, work: PathBuf::new() };
        fill(&volume, &layer, "/data").unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "high");
        assert_eq!(fs::metadata(volume.join("sub/b")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(size_of(&volume), 5);
        fs::remove_file(volume.join("a")).unwrap();
        fill(&volume, &layer, "/data").unwrap();
        assert!(!volume.join("a").exists(), "one that has something is left as it is");
        let other = dir("other");
        fill(&other, &layer, "/out").unwrap();
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "a link does not lead out of the image");
    }
}
