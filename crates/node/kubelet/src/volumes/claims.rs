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
    let mark = host.volumes_dir(pod.uid()).join("kubernetes.io~local-volume").join(name);
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
