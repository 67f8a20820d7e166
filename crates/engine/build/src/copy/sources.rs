//! Finds the sources of a copy and sums them.

use crate::checksum::{self, Entry};
use crate::context::Context;
use crate::error::{BuildError, Result};
use crate::paths;
use crate::place::CAPABILITY;
use crate::root::{Found, Root, check_depth, names};
use parking_lot::Mutex;
use rustix::fs::{self as rfs, FileType};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Sums that are remembered at most.
const MAX_REMEMBERED: usize = 4096;

/// Sums of what is in images, which never change, by image and path.
pub(crate) type SumCache = Mutex<HashMap<(String, String), String>>;

/// Where files come from.
#[derive(Clone)]
pub(crate) enum Origin {
    Context(Arc<Context>),
    /// An image's files, and its id.
    Image(Arc<Root>, String),
    /// What was downloaded: never unpacked.
    Download(Arc<Root>),
}

impl Origin {
    pub fn root(&self) -> &Root {
        match self {
            Self::Context(context) => &context.root,
            Self::Image(root, _) | Self::Download(root) => root,
        }
    }
}

/// Something to copy.
#[derive(Clone)]
pub(crate) struct Item {
    pub origin: Origin,
    pub path: String,
    /// Such as `file:…` and `dir:…`.
    pub sum: String,
}

/// Finds everything that a source names, which may be a pattern.
///
/// # Errors
/// In Docker's words, without the name of the instruction.
pub(crate) fn find(origin: &Origin, source: &str, cache: &SumCache) -> Result<Vec<Item>> {
    let source = source.strip_prefix('/').unwrap_or(source);
    let source = source.strip_prefix("./").unwrap_or(source);
    if let Origin::Download(_) = origin {
        let found = origin.root().find(Path::new(source), true).map_err(|e| failed(source, e))?;
        let found = found.ok_or_else(|| missing(origin, source))?;
        let sum = tree_sum(&found, source).map_err(|e| failed(source, e))?;
        return Ok(vec![Item { origin: origin.clone(), path: source.to_owned(), sum }]);
    }
    if !paths::has_wildcards(source) {
        return one(origin, source, cache).map(|item| vec![item]);
    }
    let mut matching = Vec::new();
    let top = origin.root().find(Path::new(""), true).map_err(|e| failed(source, e))?;
    if let Some(top) = top {
        let mut look = |path: &str| {
            // A malformed pattern matches nothing, as with Docker.
            if paths::matches(source, path).unwrap_or(false) {
                matching.push(path.to_owned());
            }
        };
        walk(&top, "", 0, &mut look).map_err(|e| failed(source, e))?;
    }
    matching.iter().map(|path| one(origin, path, cache)).collect()
}

fn failed(path: &str, error: io::Error) -> BuildError {
    BuildError::io(format_args!("read {path}"), error)
}

fn missing(origin: &Origin, path: &str) -> BuildError {
    let plain = format!("stat {path}: file does not exist");
    BuildError::new(match origin {
        Origin::Context(_) => format!("file not found in build context or excluded by .dockerignore: {plain}"),
        _ => plain,
    })
}

/// Calls with every path below a directory, in the order of their names.
fn walk(directory: &Found, path: &str, depth: usize, look: &mut dyn FnMut(&str)) -> io::Result<()> {
    check_depth(depth)?;
    let opened = directory.read()?;
    for name in names(opened.as_fd())? {
        let name = name.to_string_lossy();
        let path = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
        look(&path);
        let name = Path::new(path.rsplit('/').next().unwrap_or_default());
        if let Some(inner) = lookup(&opened, name)?.filter(Found::is_directory) {
            walk(&inner, &path, depth + 1, look)?;
        }
    }
    Ok(())
}

/// An entry of an open directory, links not followed.
fn lookup(directory: impl AsFd, name: &Path) -> io::Result<Option<Found>> {
    let flags = rfs::OFlags::PATH | rfs::OFlags::NOFOLLOW | rfs::OFlags::CLOEXEC;
    match rfs::openat(directory, name, flags, rfs::Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
        Ok(fd) => {
            let stat = rfs::fstat(&fd)?;
            Ok(Some(Found { fd, path: name.to_owned(), stat }))
        }
    }
}

fn one(origin: &Origin, path: &str, cache: &SumCache) -> Result<Item> {
    let found = origin.root().find(Path::new(path), true).map_err(|e| failed(path, e))?;
    let found = found.ok_or_else(|| missing(origin, path))?;
    let item = |sum| Item { origin: origin.clone(), path: path.to_owned(), sum };
    let key = match origin {
        Origin::Image(_, id) => Some((id.clone(), path.to_owned())),
        _ => None,
    };
    if let Some(sum) = key.as_ref().and_then(|key| cache.lock().get(key).cloned()) {
        return Ok(item(sum));
    }
    let sum = if found.is_directory() { directory_sum(origin, &found, path) } else { file_sum(origin, &found, path) };
    let sum = sum.map_err(|e| failed(path, e))?;
    if let Some(key) = key {
        let mut cache = cache.lock();
        if cache.len() >= MAX_REMEMBERED {
            cache.clear();
        }
        cache.insert(key, sum.clone());
    }
    Ok(item(sum))
}

fn file_sum(origin: &Origin, found: &Found, path: &str) -> io::Result<String> {
    let sum = match origin {
        Origin::Context(context) => context.sum(&found.path),
        _ => tree_sum(found, path)?,
    };
    Ok(format!("file:{sum}"))
}

fn directory_sum(origin: &Origin, found: &Found, path: &str) -> io::Result<String> {
    let mut sums = Vec::new();
    let is_top = found.path.as_os_str().is_empty();
    match origin {
        Origin::Context(context) => {
            // The real place of the directory is what the sums are known by.
            let top = found.path.to_string_lossy();
            let mut paths = if is_top { Vec::new() } else { vec![top.clone().into_owned()] };
            walk(found, &top, 0, &mut |path| paths.push(path.to_owned()))?;
            sums.extend(paths.iter().map(|path| context.sum(Path::new(path))));
        }
        Origin::Image(..) | Origin::Download(_) => {
            if !is_top {
                sums.push(tree_sum(found, path)?);
            }
            sum_below(found, path, 0, &mut sums)?;
        }
    }
    sums.sort_unstable();
    Ok(checksum::of_all("dir", &sums))
}

fn sum_below(directory: &Found, path: &str, depth: usize, sums: &mut Vec<String>) -> io::Result<()> {
    check_depth(depth)?;
    let opened = directory.read()?;
    for name in names(opened.as_fd())? {
        let Some(found) = lookup(&opened, Path::new(&name))? else { continue };
        let path = format!("{path}/{}", name.to_string_lossy());
        sums.push(tree_sum(&found, path.trim_start_matches('/'))?);
        if found.is_directory() {
            sum_below(&found, &path, depth + 1, sums)?;
        }
    }
    Ok(())
}

/// The sum of an entry of a file system, without what is below it.
fn tree_sum(found: &Found, path: &str) -> io::Result<String> {
    let stat = &found.stat;
    let mut name = path.to_owned();
    let mut entry =
        Entry { mode: stat.st_mode & 0o7777, uid: stat.st_uid.into(), gid: stat.st_gid.into(), ..Entry::default() };
    let link;
    entry.kind = match found.kind() {
        FileType::Directory => {
            name.push('/');
            b'5'
        }
        FileType::Symlink => {
            link = rfs::readlinkat(&found.fd, "", Vec::new())?.into_bytes();
            entry.link = &link;
            b'2'
        }
        FileType::RegularFile => {
            entry.size = u64::try_from(stat.st_size).unwrap_or_default();
            b'0'
        }
        FileType::Fifo => b'6',
        kind => {
            entry.device = (rfs::major(stat.st_rdev), rfs::minor(stat.st_rdev));
            if kind == FileType::BlockDevice { b'4' } else { b'3' }
        }
    };
    entry.name = Path::new(&name).as_os_str().as_bytes();
    if found.kind() != FileType::RegularFile {
        return Ok(entry.sum());
    }
    let file = found.file()?;
    entry.attributes.extend(capability(&file)?.map(|value| (CAPABILITY.as_bytes().to_vec(), value)));
    let mut summing = entry.sum_of(file);
    io::copy(&mut summing, &mut io::sink())?;
    Ok(summing.finish())
}

/// The capabilities that a file gives to the program in it.
pub(super) fn capability(file: impl AsFd) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0u8; 64];
    match rfs::fgetxattr(file, CAPABILITY, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
