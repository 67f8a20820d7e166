//! Gives volumes to the group that the pod names as its `fsGroup`.

use crate::reference::spec;
use pintle_types::k8s::api::core::v1::Pod;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// The group that owns the pod's volumes.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    spec(pod).security_context.as_ref()?.fs_group.and_then(|g| u32::try_from(g).ok())
}

/// A directory's group, which what is made in it inherits.
pub fn give_to_group(dir: &Path, group: u32) -> std::io::Result<()> {
    lchown(dir, None, Some(group))?;
    let mode = std::fs::symlink_metadata(dir)?.permissions().mode();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode & 0o7777 | 0o2770))
}

/// Whether a volume whose root has the right group already stays as it is.
pub fn changes_on_mismatch_only(pod: &Pod) -> bool {
    let policy = spec(pod).security_context.as_ref().and_then(|context| context.fs_group_change_policy.as_deref());
    policy == Some("OnRootMismatch")
}

/// Gives a directory and all that is in it to a group, which may read and write it then. Links are not followed.
pub fn give_tree(root: &Path, group: u32, only_on_mismatch: bool) -> std::io::Result<()> {
    let found = std::fs::symlink_metadata(root)?;
    if only_on_mismatch && found.gid() == group && found.mode() & 0o2770 == 0o2770 {
        return Ok(());
    }
    // The root last: a walk that was cut short is done again.
    let mut directories = vec![root.to_owned()];
    let mut at = 0;
    while at < directories.len() {
        for entry in std::fs::read_dir(&directories[at])? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
                continue;
            }
            lchown(entry.path(), None, Some(group))?;
            if !kind.is_symlink() {
                let mode = entry.metadata()?.permissions().mode() & 0o7777 | 0o660;
                std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode))?;
            }
        }
        at += 1;
    }
    directories.iter().rev().try_for_each(|directory| give_to_group(directory, group))
}

/// A file's mode and owner. With a group it may be read by it.
pub fn give_file(path: &Path, mode: u32, user: Option<u32>, group: Option<u32>) -> std::io::Result<()> {
    if user.is_some() || group.is_some() {
        lchown(path, user, group)?;
    }
    let mode = if group.is_some() { mode | 0o440 } else { mode };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777))
}
