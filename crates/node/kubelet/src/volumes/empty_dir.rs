//! Volumes that begin empty and end with their pod, on disk or in memory.

use super::{Why, ownership};
use crate::host::Host;
use pintle_types::k8s::api::core::v1::{EmptyDirVolumeSource, Pod};
use pintle_types::quantity::Quantity;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub fn set_up(host: &Host, pod: &Pod, source: &EmptyDirVolumeSource, path: &Path) -> Result<(), Why> {
    let ready = ready_mark(path);
    if ready.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(Why::file("make directory", path))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().map(|q| Quantity::from(q).units());
            let bytes = limit.and_then(|l| u64::try_from(l).ok()).filter(|l| *l > 0);
            host.mounter.tmpfs(path, bytes).map_err(Why::file("mount a tmpfs on", path))?;
        }
        _ => return Err(Why::Unsupported("emptyDir with this medium")),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).map_err(Why::file("set mode of", path))?;
    if let Some(group) = ownership::fs_group(pod) {
        ownership::give_to_group(path, group).map_err(Why::file("set group of", path))?;
    }
    std::fs::write(&ready, "").map_err(Why::file("write", &ready))
}

/// Stands beside the volume once it is set up, so that what containers put into it is never touched again.
fn ready_mark(path: &Path) -> std::path::PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".ready");
    path.with_file_name(name)
}
