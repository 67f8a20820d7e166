//! The lowest layer of every container: the files that programs expect of a container of Docker whatever its image has.
//!
//! It is one directory for all. As the lowest one it gives way to everything that an image brings, and is no part of what
//! a container changed.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

/// By this programs tell that they run in a container. It is written last.
const MARK: &str = ".dockerenv";
const DIRECTORIES: [&str; 5] = ["dev/pts", "dev/shm", "etc", "proc", "sys"];
const FILES: [&str; 4] = ["dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Where it is.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("base-layer")
}

/// Makes it unless it is there.
pub(crate) fn make(data_dir: &Path) -> io::Result<()> {
    let root = path(data_dir);
    if root.join(MARK).exists() {
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    DIRECTORIES.iter().try_for_each(|name| fs::create_dir_all(root.join(name)))?;
    symlink("/proc/mounts", root.join("etc/mtab"))?;
    let mut file = fs::OpenOptions::new();
    file.write(true).create(true).truncate(true).mode(0o755);
    FILES.iter().chain([&MARK]).try_for_each(|name| file.open(root.join(name)).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_made_is_made_anew() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir_all(path(data.path()).join("etc/mtab")).unwrap();
        make(data.path()).unwrap();
        make(data.path()).unwrap();
        assert_eq!(fs::read_link(path(data.path()).join("etc/mtab")).unwrap(), Path::new("/proc/mounts"));
        assert!(path(data.path()).join(MARK).is_file() && path(data.path()).join("dev/console").is_file());
    }
}
