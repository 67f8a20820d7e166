//! Directories of this node for the cluster's own provisioner: made and removed when the API server asks for it.

use crate::host::is_plain_name;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const FOLDER: &str = "local-path";

fn directory(root: &Path, volume: &str) -> Result<PathBuf> {
    if !is_plain_name(volume) {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{volume:?} is no name of a volume")));
    }
    Ok(root.join(FOLDER).join(volume))
}

/// Makes the directory of a volume, for any user to write into; one that is there stays as it is. Blocks.
pub fn make(root: &Path, volume: &str) -> Result<PathBuf> {
    let path = directory(root, volume)?;
    std::fs::create_dir_all(root.join(FOLDER))?;
    match std::fs::create_dir(&path) {
        Ok(()) => std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(path)
}

/// Removes the directory of a volume with everything in it. Blocks.
pub fn remove(root: &Path, volume: &str) -> Result<()> {
    super::remove_tree(&directory(root, volume)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_and_go_by_name() {
        let root = crate::fake::temporary_directory();
        let path = make(root.path(), "pvc-1").unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
        assert_eq!(make(root.path(), "pvc-1").unwrap(), path, "again");
        assert!(path.join("file").exists());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o777);
        remove(root.path(), "pvc-1").unwrap();
        assert!(!path.exists());
        remove(root.path(), "pvc-1").unwrap();
        for wrong in ["..", "", "a/b", "."] {
            assert!(make(root.path(), wrong).is_err() && remove(root.path(), wrong).is_err(), "{wrong:?}");
        }
    }
}
