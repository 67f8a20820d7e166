//! Mounts for volumes, behind a trait so that tests need no privileges.

use std::path::Path;

/// Mounts and unmounts directories of volumes.
pub trait Mounter: Send + Sync + 'static {
    /// Mounts a tmpfs, of at most `bytes`; succeeds when one is there already.
    fn tmpfs(&self, path: &Path, bytes: Option<u64>) -> std::io::Result<()>;
    /// Mounts a hugetlbfs with pages of so many bytes; succeeds when something is mounted there already.
    fn huge_pages(&self, path: &Path, page_bytes: u64) -> std::io::Result<()>;
    /// Unmounts; succeeds when nothing is mounted there.
    fn unmount(&self, path: &Path) -> std::io::Result<()>;
    /// Whether something is mounted there.
    fn is_mounted(&self, path: &Path) -> std::io::Result<bool>;
}

/// The machine's mounts.
pub struct SystemMounter;

impl Mounter for SystemMounter {
    fn tmpfs(&self, path: &Path, bytes: Option<u64>) -> std::io::Result<()> {
        let size = bytes.map(|b| b.to_string());
        let mut options = vec![("mode", "0777")];
        options.extend(size.as_deref().map(|s| ("size", s)));
        mount("tmpfs", &options, path)
    }

    fn huge_pages(&self, path: &Path, page_bytes: u64) -> std::io::Result<()> {
        mount("hugetlbfs", &[("pagesize", &page_bytes.to_string()), ("mode", "0777")], path)
    }

    fn unmount(&self, path: &Path) -> std::io::Result<()> {
        if is_mount_point(path)? { pintle_linux::mount::unmount(path).map_err(|e| e.source) } else { Ok(()) }
    }

    fn is_mounted(&self, path: &Path) -> std::io::Result<bool> {
        is_mount_point(path)
    }
}

/// Mounts a filesystem without a source where nothing is mounted.
fn mount(filesystem: &str, options: &[(&str, &str)], path: &Path) -> std::io::Result<()> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let tree = pintle_linux::mount::Tree::of_filesystem(filesystem, options, pintle_linux::mount::Attributes::empty());
    tree.and_then(|tree| tree.attach_at(path)).map_err(|e| e.source)
}

/// Whether a directory is on another filesystem than the directory that holds it.
fn is_mount_point(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let here = match std::fs::symlink_metadata(path) {
        Ok(here) => here,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let above = std::fs::symlink_metadata(path.parent().unwrap_or(path))?;
    Ok(here.is_dir() && here.dev() != above.dev())
}
