//! Gives volumes to the group that the pod names as its `fsGroup`.

use crate::reference::spec;
use pintle_types::k8s::api::core::v1::Pod;
use std::os::unix::fs::{PermissionsExt, lchown};
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

/// A file's mode and owner. With a group it may be read by it.
pub fn give_file(path: &Path, mode: u32, user: Option<u32>, group: Option<u32>) -> std::io::Result<()> {
    if user.is_some() || group.is_some() {
        lchown(path, user, group)?;
    }
    let mode = if group.is_some() { mode | 0o440 } else { mode };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777))
}
