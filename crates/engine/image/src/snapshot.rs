//! Writable layers of containers on top of an image's layers.

use crate::{At, ImageError, Result};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What an overlay mount of a container's root file system is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMounts {
    /// Read-only layers, the topmost first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

pub(crate) struct Snapshots {
    directory: PathBuf,
}

/// A key names one directory: nothing that could lead elsewhere.
fn check_key(key: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || key.starts_with('.') || !key.chars().all(plain) {
        return Err(ImageError::Conflict(format!("{key:?} is no snapshot key: use letters, digits, '-', '_' and '.'")));
    }
    Ok(())
}

impl Snapshots {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let directory = root.join("snapshots");
        fs::create_dir_all(&directory).at("create", &directory)?;
        Ok(Self { directory })
    }

    fn mounts(&self, key: &str, lower: Vec<PathBuf>) -> SnapshotMounts {
        let base = self.directory.join(key);
        SnapshotMounts { lower, upper: base.join("upper"), work: base.join("work") }
    }

    /// Makes a snapshot on the layers `chain` (lowest first), or finds it again.
    pub(crate) fn prepare(&self, key: &str, chain: &[String], lower: Vec<PathBuf>) -> Result<SnapshotMounts> {
        check_key(key)?;
        let mounts = self.mounts(key, lower);
        let base = self.directory.join(key);
        for directory in [&base, &mounts.upper, &mounts.work] {
            match fs::create_dir(directory) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other.at("create", directory)?,
            }
        }
        // The top layer's root directory has the mode of the image's own root.
        if let Some(top) = mounts.lower.first() {
            let mode = fs::metadata(top).at("read", top)?.permissions();
            fs::set_permissions(&mounts.upper, mode).at("change", &mounts.upper)?;
        }
        let list = base.join("chain");
        fs::write(&list, chain.join("\n")).at("write", &list)?;
        Ok(mounts)
    }

    /// The layers below a snapshot, lowest first.
    pub(crate) fn chain(&self, key: &str) -> Result<Vec<String>> {
        check_key(key)?;
        let list = self.directory.join(key).join("chain");
        match fs::read_to_string(&list) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(ImageError::NoSnapshot(key.to_owned())),
            Err(e) => Err(e).at("read", &list),
        }
    }

    /// The mounts of a snapshot that was prepared.
    pub(crate) fn existing(&self, key: &str, lower: Vec<PathBuf>) -> Result<SnapshotMounts> {
        check_key(key)?;
        Ok(self.mounts(key, lower))
    }

    pub(crate) fn remove(&self, key: &str) -> Result<()> {
        check_key(key)?;
        let base = self.directory.join(key);
        match fs::remove_dir_all(&base) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.at("remove", base),
        }
    }

    pub(crate) fn keys(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory).at("list", &self.directory)?;
        entries.map(|e| Ok(e.at("list", &self.directory)?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The chain IDs that some snapshot stands on.
    pub(crate) fn used_chains(&self) -> Result<HashSet<String>> {
        let mut used = HashSet::new();
        for key in self.keys()? {
            let list = self.directory.join(&key).join("chain");
            match fs::read_to_string(&list) {
                Ok(text) => used.extend(text.lines().map(str::to_owned)),
                // Half made when the machine stopped: it stands on nothing yet.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).at("read", &list),
            }
        }
        Ok(used)
    }

    /// Bytes and files in the writable layer.
    pub(crate) fn usage(&self, key: &str) -> Result<(u64, u64)> {
        check_key(key)?;
        let mut total = (0, 0);
        add_usage(&self.directory.join(key).join("upper"), &mut total)?;
        Ok(total)
    }
}

fn add_usage(directory: &Path, total: &mut (u64, u64)) -> Result<()> {
    for entry in fs::read_dir(directory).at("list", directory)? {
        let entry = entry.at("list", directory)?;
        // A running container may have removed it just now.
        let Ok(meta) = entry.metadata() else { continue };
        total.0 += meta.blocks() * 512;
        total.1 += 1;
        if meta.is_dir() {
            add_usage(&entry.path(), total)?;
        }
    }
    Ok(())
}
