//! Binds parts of volumes to places of our own, for runtimes that take a path and would follow its links.
//!
//! What a `sub_path` names is opened beneath the volume and never outside of it, and cloned from that descriptor to
//! `STATE/sub-paths/SANDBOX/CONTAINER/NUMBER`, where nobody else can put a link in between (CVE-2021-25741). The runtime
//! has its own mount of it once the container is made; ours go with the sandbox, or when the container is made anew.

use pintle_cri::{CriError, CriResult, Mount};
use pintle_linux::mount::{Tree, unmount};
use pintle_linux::path::{Dir, Scope, open_directory};
use rustix::fs::{FileType, OFlags};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

fn failed(what: impl std::fmt::Display, why: impl std::fmt::Display) -> CriError {
    CriError::Internal(format!("{what}: {why}"))
}

/// The mounts with paths that lead nowhere else.
pub(super) async fn bound(mounts: Vec<Mount>, place: PathBuf) -> CriResult<Vec<Mount>> {
    if mounts.iter().all(|mount| mount.sub_path.is_empty() || !mount.image.is_empty()) {
        return Ok(mounts);
    }
    let work = move || {
        let bind = |(number, mount): (usize, Mount)| {
            if mount.sub_path.is_empty() || !mount.image.is_empty() {
                return Ok(mount);
            }
            let at = place.join(number.to_string());
            bind(&mount, &at)?;
            let host_path = at.to_string_lossy().into_owned();
            Ok(Mount { host_path, sub_path: String::new(), ..mount })
        };
        mounts.into_iter().enumerate().map(bind).collect()
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| failed("bind a part of a volume", e))?
}

fn bind(mount: &Mount, at: &Path) -> CriResult<()> {
    let what = || format!("bind {} of {}", mount.sub_path, mount.host_path);
    let volume = open_directory(Path::new(&mount.host_path)).map_err(|e| failed(what(), e))?;
    let part = Dir::new(&volume, Scope::Beneath).open(Path::new(&mount.sub_path), OFlags::PATH);
    let part = part.map_err(|e| failed(what(), e))?;
    let status = rustix::fs::fstat(&part).map_err(|e| failed(what(), e))?;
    // An earlier try's.
    unmount(at).map_err(|e| failed(what(), e))?;
    let folder = if FileType::from_raw_mode(status.st_mode) == FileType::Directory { Some(at) } else { at.parent() };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.unwrap_or(at));
    made.map_err(|e| failed(what(), e))?;
    if folder != Some(at) {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(at)
            .map_err(|e| failed(format_args!("make {}", at.display()), e))?;
    }
    let tree = Tree::clone_of(part.as_fd(), true).map_err(|e| failed(what(), e))?;
    tree.attach_at(at).map_err(|e| failed(what(), e))
}

/// Takes the mounts of a sandbox away.
pub(super) async fn release(sandbox: PathBuf) -> CriResult<()> {
    let work = move || {
        for container in entries(&sandbox)? {
            for mounted in entries(&container)? {
                unmount(&mounted).map_err(|e| failed("release a part of a volume", e))?;
                // Never what it holds: a directory that is not empty stays.
                let gone =
                    if mounted.is_dir() { std::fs::remove_dir(&mounted) } else { std::fs::remove_file(&mounted) };
                gone.map_err(|e| failed(format_args!("remove {}", mounted.display()), e))?;
            }
            std::fs::remove_dir(&container).map_err(|e| failed(format_args!("remove {}", container.display()), e))?;
        }
        match std::fs::remove_dir(&sandbox) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(format_args!("remove {}", sandbox.display()), error))
            }
            _ => Ok(()),
        }
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| failed("release parts of volumes", e))?
}

fn entries(folder: &Path) -> CriResult<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(format_args!("read {}", folder.display()), error)),
    }
}
