//! Volumes behind claims: finds the claim and its volume, and brings the volume here.
//!
//! Local and hostPath volumes are used where they are, NFS is mounted below the pod's directory. A binding never
//! changes while a pod uses it, so that it is looked up once.

use super::{VolumeError, Why, host_path, nfs, ownership};
use crate::host::Host;
use pintle_storage::{ClaimUse, is_pods_own};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{LocalVolumeSource, PersistentVolume, PersistentVolumeSpec, Pod, Volume};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of a pod that marks which local volumes it was given.
pub const LOCAL_MARKS: &str = "kubernetes.io~local-volume";

/// Finds the volume of a claim. The claim must be bound to it, and it to the claim.
pub async fn bound(
    host: &Host,
    pod: &Pod,
    volume: &Volume,
    used: &ClaimUse,
) -> Result<Arc<PersistentVolume>, VolumeError> {
    let fail = |why: String| VolumeError {
        volume: volume.name.clone(),
        why: Why::Claim { claim: format!("{}/{}", pod.namespace(), used.name), why },
    };
    let claim = host.api.claim(pod.namespace(), &used.name).await;
    let claim = claim.map_err(|error| fail(format!("failed to fetch PVC from API server: {error}")))?;
    if used.ephemeral && !is_pods_own(&claim, pod) {
        return Err(fail(format!("PVC {} was not created for pod {} (pod is not owner)", claim.key(), pod.key())));
    }
    if claim.is_deleting() {
        return Err(fail("PVC is being deleted".into()));
    }
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase != Some("Bound") || name.is_empty() {
        return Err(fail("PVC is not bound".into()));
    }
    let found = host.api.persistent_volume(name).await;
    let found = found.map_err(|error| fail(format!("failed to fetch PV {name} from API server: {error}")))?;
    let reference = found.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match reference {
        None => Err(fail(format!("PV {name} spec.claimRef is nil"))),
        Some(reference) if reference.uid.as_deref() != Some(claim.uid()) => {
            Err(fail(format!("PV {name} spec.claimRef.uid does not match PVC {}", claim.key())))
        }
        Some(_) => Ok(found),
    }
}

/// Brings a volume here; returns where it is. `device` says that containers want it as a block device.
pub async fn set_up(
    host: &Host,
    pod: &Pod,
    volume: &PersistentVolume,
    read_only: bool,
    device: bool,
) -> Result<PathBuf, Why> {
    let empty = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&empty);
    let block = spec.volume_mode.as_deref() == Some("Block");
    if block != device {
        let (mode, list) = if block { ("Block", "volumeMounts") } else { ("Filesystem", "volumeDevices") };
        let why = format!("volume {} has volumeMode {mode}, but is specified in {list}", volume.name());
        return Err(Why::Invalid(why));
    }
    if let Some(source) = &spec.local {
        return local(host, pod, volume.name(), source, read_only, block);
    }
    if let Some(source) = &spec.host_path {
        return host_path::set_up(source);
    }
    if let Some(source) = &spec.nfs {
        let path = host.volumes_dir(pod.uid()).join("kubernetes.io~nfs").join(volume.name());
        nfs::set_up(host, source, spec.mount_options.as_deref().unwrap_or_default(), read_only, &path).await?;
        return Ok(path);
    }
    Err(Why::Unsupported(if spec.csi.is_some() { "csi" } else { "persistentVolumeClaim with this volume" }))
}

/// Whether statistics tell of such a volume by its claim: upstream has none of `hostPath`, and a server of NFS that does
/// not answer would hold up whoever asks.
pub fn is_measured(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.local.is_some())
}

fn local(
    host: &Host,
    pod: &Pod,
    name: &str,
    source: &LocalVolumeSource,
    read_only: bool,
    block: bool,
) -> Result<PathBuf, Why> {
    let path = PathBuf::from(&source.path);
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(Why::Invalid(format!("path {:?} must be absolute and without '..'", source.path)));
    }
    let Ok(found) = std::fs::metadata(&path) else {
        return Err(Why::Invalid(format!("path \"{}\" does not exist", source.path)));
    };
    if block {
        let is_device = found.file_type().is_block_device();
        let wrong = || Why::Invalid(format!("path \"{}\" is not a block device", source.path));
        return if is_device { Ok(path) } else { Err(wrong()) };
    }
    if !found.is_dir() {
        return Err(Why::Unsupported("local with a block device that holds a file system"));
    }
    // Whose files they are is settled when the pod first has the volume, never again while it runs.
    let mark = host.volumes_dir(pod.uid()).join(LOCAL_MARKS).join(name);
    if !mark.exists() {
        give(pod, &path, read_only)?;
        std::fs::create_dir_all(&mark).map_err(Why::file("make directory", &mark))?;
    }
    Ok(path)
}

fn give(pod: &Pod, path: &Path, read_only: bool) -> Result<(), Why> {
    match ownership::fs_group(pod) {
        Some(group) if !read_only => {
            let only_on_mismatch = ownership::changes_on_mismatch_only(pod);
            ownership::give_tree(path, group, only_on_mismatch).map_err(Why::file("set group in", path))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRuntime;
    use crate::fake::api::{FakeApi, host};
    use crate::volumes::Volumes;
    use pintle_types::k8s::api::core::v1::PersistentVolumeClaim;
    use serde_json::{Value, json};

    struct Node {
        api: Arc<FakeApi>,
        host: Arc<Host>,
        directory: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let (api, directory) = (FakeApi::new(), crate::fake::temporary_directory());
            let runtime = FakeRuntime::new(pintle_clock::system());
            let host = host(directory.path(), pintle_clock::system(), runtime, Arc::clone(&api), Arc::default());
            Self { api, host, directory }
        }

        fn claim(&self, status: Value) {
            let object = json!({
                "metadata": { "name": "data", "namespace": "default", "uid": "c" },
                "spec": { "volumeName": "pv" }, "status": status,
            });
            let claim = PersistentVolumeClaim::from_value(object).unwrap();
            self.api.claims.lock().insert("data".into(), claim);
        }

        fn volume(&self, owner: &str, mode: &str, source: Value) {
            let mut spec = json!({ "claimRef": { "name": "data", "uid": owner }, "volumeMode": mode });
            source.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
            let object = json!({ "metadata": { "name": "pv" }, "spec": spec });
            self.api.volumes.lock().insert("pv".into(), PersistentVolume::from_value(object).unwrap());
        }

        async fn set_up(&self, more: Value) -> Result<PathBuf, String> {
            let mut spec = json!({
                "containers": [{ "name": "c", "image": "i" }],
                "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }],
            });
            more.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
            let pod = crate::fake::pods::pod(spec);
            let paths = Volumes::default().set_up(&self.host, &pod, &[]).await;
            paths.map(|paths| paths["v"].clone()).map_err(|error| error.to_string())
        }
    }

    const CLAIM: &str = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to \
                         process volumes=[v]: error processing PVC default/data: ";

    #[tokio::test]
    async fn only_a_bound_claim_is_used() {
        let node = Node::new();
        let none = "failed to fetch PVC from API server: persistentvolumeclaims \"data\" not found";
        assert_eq!(node.set_up(json!({})).await, Err(format!("{CLAIM}{none}")));
        node.claim(json!({ "phase": "Pending" }));
        assert_eq!(node.set_up(json!({})).await, Err(format!("{CLAIM}PVC is not bound")));
        node.claim(json!({ "phase": "Bound" }));
        let none = "failed to fetch PV pv from API server: persistentvolumes \"pv\" not found";
        assert_eq!(node.set_up(json!({})).await, Err(format!("{CLAIM}{none}")));
        node.volume("another", "Filesystem", json!({}));
        let wrong = "PV pv spec.claimRef.uid does not match PVC default/data";
        assert_eq!(node.set_up(json!({})).await, Err(format!("{CLAIM}{wrong}")));
    }

    #[tokio::test]
    async fn a_local_volume_is_used_where_it_is() {
        let node = Node::new();
        node.claim(json!({ "phase": "Bound" }));
        let path = node.directory.path().join("disk");
        node.volume("c", "Filesystem", json!({ "local": { "path": path } }));
        let missing =
            format!("MountVolume.SetUp failed for volume \"pv\" : path \"{}\" does not exist", path.display());
        assert_eq!(node.set_up(json!({})).await, Err(missing));
        std::fs::create_dir(&path).unwrap();
        assert_eq!(node.set_up(json!({})).await, Ok(path.clone()));
        let stats = crate::stats::Collector::new(Arc::clone(&node.host));
        let told = stats.volumes("u1").await;
        assert_eq!(told.iter().map(|v| (v.name.as_str(), &v.path)).collect::<Vec<_>>(), [("v", &path)]);
        crate::purge::volumes_and_cgroup(&node.host, "u1", false).await.unwrap();
        assert!(stats.volumes("u1").await.is_empty());
        let device = json!([{ "name": "c", "image": "i", "volumeDevices": [{ "name": "v", "devicePath": "/dev/x" }] }]);
        let words = "MountVolume.SetUp failed for volume \"pv\" : volume pv has volumeMode Filesystem, but is specified \
                     in volumeDevices";
        assert_eq!(node.set_up(json!({ "containers": device })).await, Err(words.into()));
        node.volume("c", "Block", json!({ "local": { "path": path } }));
        let words =
            format!("MountVolume.SetUp failed for volume \"pv\" : path \"{}\" is not a block device", path.display());
        assert_eq!(node.set_up(json!({ "containers": device })).await, Err(words));
        node.volume("c", "Filesystem", json!({ "csi": { "driver": "d", "volumeHandle": "h" } }));
        let words = "MountVolume.SetUp failed for volume \"pv\" : volumes of kind csi are not supported by this node";
        assert_eq!(node.set_up(json!({})).await, Err(words.into()));
    }

    #[tokio::test]
    async fn the_group_of_a_pod_gets_its_files_once() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let node = Node::new();
        node.claim(json!({ "phase": "Bound" }));
        let path = node.directory.path().join("disk");
        std::fs::create_dir_all(path.join("inner")).unwrap();
        let file = path.join("inner/file");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let outside = node.directory.path().join("outside");
        std::fs::write(&outside, "x").unwrap();
        symlink(&outside, path.join("link")).unwrap();
        node.volume("c", "Filesystem", json!({ "local": { "path": path } }));
        // A group that the test may give files to without being root.
        let group = std::fs::metadata(&path).unwrap().gid();
        let before = std::fs::metadata(&outside).unwrap().mode();
        let security = json!({ "securityContext": { "fsGroup": group } });
        node.set_up(security.clone()).await.unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&file), mode(&path.join("inner"))), (0o660, 0o2775));
        assert_eq!(std::fs::metadata(&outside).unwrap().mode(), before, "a link was followed");
        // What the pod does to its files afterwards stays.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        node.set_up(security).await.unwrap();
        assert_eq!(mode(&file), 0o600);
    }
}
