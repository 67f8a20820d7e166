//! Writable layers of containers on top of an image's layers: overlays, or where those are refused copies.

use crate::{At, ImageError, Result, copies};
use pintle_linux::mount::Overlay;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What an overlay mount of a container's root file system is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMounts {
    /// Read-only layers, the topmost first. None: `upper` is the whole root.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// How new snapshots are made. Those that are there stay what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotForm {
    /// A directory for what is written, over the layers.
    Overlay,
    /// A copy of all that the layers have together: slower, and larger, but it needs nothing of the kernel.
    Copies,
}

impl SnapshotForm {
    /// What storage drivers of that form are usually called.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Overlay => "overlay2",
            Self::Copies => "vfs",
        }
    }
}

pub(crate) struct Snapshots {
    directory: PathBuf,
    /// Found out when the first is made.
    form: OnceLock<SnapshotForm>,
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
        Ok(Self { directory, form: OnceLock::new() })
    }

    /// Decides the form of new snapshots, unless one was made.
    pub(crate) fn choose(&self, form: SnapshotForm) {
        // The first decision holds.
        let _ = self.form.set(form);
    }

    /// Tries an overlay in a directory beside the snapshots, once.
    pub(crate) fn form(&self, spare: &Path) -> Result<SnapshotForm> {
        if let Some(form) = self.form.get() {
            return Ok(*form);
        }
        let place = tempfile::tempdir_in(spare).at("create a directory in", spare)?;
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.path().join(name));
        for directory in [&lower, &upper, &work] {
            fs::create_dir(directory).at("create", directory)?;
        }
        let overlay = Overlay { lower: &[lower], upper: &upper, work: &work, volatile: false };
        let form = if overlay.tree().is_ok() { SnapshotForm::Overlay } else { SnapshotForm::Copies };
        Ok(*self.form.get_or_init(|| form))
    }

    fn mounts(&self, key: &str, lower: Vec<PathBuf>) -> SnapshotMounts {
        let base = self.directory.join(key);
        SnapshotMounts { lower, upper: base.join("upper"), work: base.join("work") }
    }

    /// Makes a snapshot on the layers `chain` (lowest first), or finds it again.
    pub(crate) fn prepare(
        &self,
        key: &str,
        chain: &[String],
        lower: Vec<PathBuf>,
        form: SnapshotForm,
    ) -> Result<SnapshotMounts> {
        check_key(key)?;
        let base = self.directory.join(key);
        let list = base.join("chain");
        if list.exists() {
            return self.existing(key, lower);
        }
        // It may be half made.
        self.remove(key)?;
        let mounts = self.mounts(key, lower);
        for directory in [&base, &mounts.upper] {
            fs::create_dir(directory).at("create", directory)?;
        }
        match form {
            SnapshotForm::Copies => copies::fill(&mounts.upper, &mounts.lower)?,
            SnapshotForm::Overlay => {
                fs::create_dir(&mounts.work).at("create", &mounts.work)?;
                // The top layer's root directory has the mode of the image's own root.
                if let Some(top) = mounts.lower.first() {
                    let mode = fs::metadata(top).at("read", top)?.permissions();
                    fs::set_permissions(&mounts.upper, mode).at("change", &mounts.upper)?;
                }
            }
        }
        fs::write(&list, chain.join("\n")).at("write", &list)?;
        self.existing(key, mounts.lower)
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
        let mounts = self.mounts(key, lower);
        // A copy needs nothing below it, and no directory to work in.
        Ok(if mounts.work.exists() { mounts } else { SnapshotMounts { lower: Vec::new(), ..mounts } })
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
