//! Volumes that begin empty and end with their pod, on disk or in memory.

use super::{Why, ownership};
use crate::host::Host;
use crate::huge_pages;
use pintle_types::k8s::api::core::v1::{EmptyDirVolumeSource, Pod};
use pintle_types::quantity::Quantity;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub fn set_up(host: &Host, pod: &Pod, source: &EmptyDirVolumeSource, path: &Path) -> Result<(), Why> {
    let ready = ready_mark(path);
    let medium = source.medium.as_deref().unwrap_or_default();
    // What is mounted goes with the machine, the mark stays.
    if ready.exists() && (medium.is_empty() || host.mounter.is_mounted(path).map_err(Why::file("look at", path))?) {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(Why::file("make directory", path))?;
    match medium {
        "" => {}
        "Memory" => {
            let bytes = size_in_memory(source, pod, host.settings.allocatable_memory);
            host.mounter.tmpfs(path, Some(bytes)).map_err(Why::file("mount a tmpfs on", path))?;
        }
        huge if huge_pages::is_medium(huge) => {
            let page_bytes = huge_pages::page_bytes_of_volume(huge, pod).map_err(Why::Invalid)?;
            host.mounter.huge_pages(path, page_bytes).map_err(Why::file("mount huge pages on", path))?;
        }
        _ => return Err(Why::Unsupported("emptyDir with this medium")),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).map_err(Why::file("set mode of", path))?;
    if let Some(group) = ownership::fs_group(pod) {
        ownership::give_to_group(path, group).map_err(Why::file("set group of", path))?;
    }
    std::fs::write(&ready, "").map_err(Why::file("write", &ready))
}

/// The bytes that a volume in memory can hold: the least of its own limit, of its pod's, and of what the node has for
/// pods, `allocatable`. Source: `calculateEmptyDirMemorySize` of upstream's `pkg/volume/emptydir`.
fn size_in_memory(source: &EmptyDirVolumeSource, pod: &Pod, allocatable: u64) -> u64 {
    let own = source.size_limit.as_ref().map_or(0, |limit| Quantity::from(limit).units());
    let whole_pod = crate::resources::of_pod(pod).memory_limit_in_bytes;
    let limits = [own, whole_pod].into_iter().filter_map(|limit| u64::try_from(limit).ok().filter(|limit| *limit > 0));
    limits.fold(allocatable, u64::min)
}

/// Stands beside the volume once it is set up, so that what containers put into it is never touched again.
fn ready_mark(path: &Path) -> std::path::PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".ready");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::api::{FakeApi, FakeEvents, host};
    use crate::fake::pods::pod;
    use crate::fake::{FakeRuntime, temporary_directory};
    use crate::volumes::{Mounter, SystemMounter};
    use serde_json::{Value, json};
    use std::sync::Arc;

    const MEBIBYTE: u64 = 1 << 20;

    /// The size in MiB on a node with 100 MiB for pods.
    fn size(limit: Value, resources: Value) -> u64 {
        let source: EmptyDirVolumeSource =
            serde_json::from_value(json!({"medium": "Memory", "sizeLimit": limit})).unwrap();
        let pod = pod(json!({"containers": [{"name": "a", "resources": resources}]}));
        size_in_memory(&source, &pod, 100 * MEBIBYTE) / MEBIBYTE
    }

    #[test]
    fn a_volume_in_memory_is_bounded_by_the_least() {
        let memory = |amount: &str| json!({"limits": {"memory": amount}});
        for (limit, resources, expected) in [
            (Value::Null, json!({}), 100),
            (json!("0"), json!({}), 100),
            (json!("10Mi"), json!({}), 10),
            (json!("1Gi"), json!({}), 100),
            (Value::Null, memory("40Mi"), 40),
            (Value::Null, memory("1Gi"), 100),
            (json!("10Mi"), memory("40Mi"), 10),
            (json!("50Mi"), memory("40Mi"), 40),
            (json!("50Mi"), json!({"requests": {"memory": "40Mi"}}), 50),
        ] {
            assert_eq!(size(limit.clone(), resources.clone()), expected, "{limit} {resources}");
        }
    }

    #[test]
    fn what_a_machine_forgets_is_mounted_again_and_nothing_else_is_touched() {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let dir = temporary_directory();
        let clock = pintle_clock::system();
        let runtime = FakeRuntime::new(Arc::clone(&clock));
        let mut host = host(dir.path(), clock, runtime, FakeApi::new(), Arc::new(FakeEvents::default()));
        Arc::get_mut(&mut host).unwrap().mounter = Arc::new(SystemMounter);
        let pod = pod(json!({"containers": [
            {"name": "a", "resources": {"limits": {"hugepages-2Mi": "2Mi", "memory": "1Mi"}}}]}));
        for (medium, block) in [("Memory", 4096), ("HugePages", 2 * MEBIBYTE), ("HugePages-2Mi", 2 * MEBIBYTE)] {
            let source = EmptyDirVolumeSource { medium: Some(medium.to_owned()), size_limit: None };
            let path = dir.path().join(medium);
            let mode = || path.metadata().unwrap().permissions().mode() & 0o7777;
            let set_up = || set_up(&host, &pod, &source, &path).unwrap();
            set_up();
            assert_eq!(rustix::fs::statvfs(&path).unwrap().f_bsize, block, "{medium}");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            set_up();
            assert_eq!(mode(), 0o700, "{medium}: what is there is left as it is");
            SystemMounter.unmount(&path).unwrap();
            set_up();
            assert!(SystemMounter.is_mounted(&path).unwrap(), "{medium}");
            assert_eq!(mode(), 0o777, "{medium}");
            SystemMounter.unmount(&path).unwrap();
        }
    }

    #[test]
    fn a_container_without_a_limit_leaves_its_pod_without() {
        let source = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: None };
        let pod = pod(json!({"containers": [
            {"name": "a", "resources": {"limits": {"memory": "1Mi"}}}, {"name": "b"}]}));
        assert_eq!(size_in_memory(&source, &pod, 100 * MEBIBYTE), 100 * MEBIBYTE);
    }
}
