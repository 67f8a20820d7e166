//! Makes the part of a volume that a container mounts, without ever following a link out of the volume.

use super::Why;
use pintle_linux::Context;
use pintle_linux::path::{Dir, Scope, open_directory};
use rustix::fs::OFlags;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

/// Makes sure that `sub_path` exists in the volume, as a directory with the volume's mode when it is not there.
///
/// The runtime resolves it again when it mounts, beneath the volume too; what a container changes in between can
/// only make that fail (CVE-2021-25741).
pub fn prepare(volume: &Path, sub_path: &str) -> Result<(), Why> {
    let relative = Path::new(sub_path);
    if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(Why::Invalid(format!("subPath {sub_path:?} must be relative and without '..'")));
    }
    let fail = |error: pintle_linux::Error| Why::File {
        action: "prepare subPath in",
        path: volume.join(relative),
        error: error.to_string(),
    };
    let base = open_directory(volume).map_err(fail)?;
    let dir = Dir::new(&base, Scope::Beneath);
    match dir.open(relative, OFlags::PATH) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(&dir, volume, relative).map_err(fail),
        Err(error) => Err(fail(error)),
    }
}

/// Makes each missing part, and gives it the volume's mode whatever the umask is.
fn make(dir: &Dir<'_>, volume: &Path, relative: &Path) -> Result<(), pintle_linux::Error> {
    let mode = std::fs::metadata(volume).context(|| format!("look at {}", volume.display()))?.permissions();
    let mut path = PathBuf::new();
    for part in relative.components() {
        path.push(part);
        if dir.open(&path, OFlags::PATH).is_ok() {
            continue;
        }
        let made = dir.make_dir(&path, 0o750)?;
        // The descriptor was opened for its path only, which fchmod(2) refuses.
        let by_descriptor = format!("/proc/self/fd/{}", made.as_raw_fd());
        std::fs::set_permissions(by_descriptor, mode.clone()).context(|| format!("set mode of {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_sub_path_never_leaves_the_volume() {
        let dir = crate::fake::temporary_directory();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o2777)).unwrap();
        prepare(&volume, "a/b").unwrap();
        let mode = std::fs::metadata(volume.join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o2777);
        assert!(volume.join("a/b").is_dir());
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        assert!(prepare(&volume, "out").is_err());
        assert!(prepare(&volume, "out/x").is_err());
        assert!(prepare(&volume, "../x").is_err());
        assert!(prepare(&volume, "/etc").is_err());
        std::os::unix::fs::symlink("a", volume.join("in")).unwrap();
        prepare(&volume, "in/b").unwrap();
    }
}
