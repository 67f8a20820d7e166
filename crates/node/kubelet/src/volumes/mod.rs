//! Sets up the volumes of a pod and keeps their contents current.
//!
//! A volume is a directory below the pod's directory, named as upstream names it (`kubernetes.io~configmap/NAME`), or
//! a path of the host. What comes from the API is written atomically and again whenever it differs; the rest is made
//! once. Everything is found again by its path, so nothing has to be remembered over a restart.

mod atomic;
mod claimed;
mod claims;
mod empty_dir;
mod host_path;
pub mod local_path;
mod mounter;
mod nfs;
mod ownership;
mod payload;
mod sub_path;
mod tokens;
mod trust_bundle;

pub use claimed::Claimed;
pub use claims::LOCAL_MARKS;
pub use mounter::{Mounter, SystemMounter};
pub use payload::references;
pub use sub_path::prepare as prepare_sub_path;
pub use tokens::Tokens;

use crate::api::ApiError;
use crate::field_ref::FieldError;
use crate::host::{Host, is_plain_name};
use crate::reference::{lasting_containers, spec};
use pintle_storage::ClaimUse;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, Pod, Volume};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A volume that could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct VolumeError {
    pub volume: String,
    pub why: Why,
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { volume, why } = self;
        match why {
            Why::Claim { .. } => write!(
                f,
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to \
                 process volumes=[{volume}]: {why}"
            ),
            _ => write!(f, "MountVolume.SetUp failed for volume {volume:?} : {why}"),
        }
    }
}

/// Why a volume could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    Field(#[from] FieldError),
    #[error("references non-existent {kind} key: {key}")]
    Key { kind: &'static str, key: String },
    #[error("hostPath type check failed: {0}")]
    HostPath(String),
    #[error("cannot {action} {path:?}: {error}")]
    File { action: &'static str, path: PathBuf, error: String },
    #[error("volumes of kind {0} are not supported by this node")]
    Unsupported(&'static str),
    /// The claim of a volume is not as it must be.
    #[error("error processing PVC {claim}: {why}")]
    Claim { claim: String, why: String },
    #[error("{0}")]
    Invalid(String),
}

impl Why {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { action, path, error: error.to_string() }
    }
}

/// Where the volumes of a pod are on the host, by name.
pub type Paths = HashMap<String, PathBuf>;

/// What the actor of a pod keeps about its volumes.
#[derive(Default)]
pub struct Volumes {
    /// Hashes of what was written, by volume.
    written: HashMap<String, u64>,
    pub tokens: Tokens,
    /// The volumes behind claims, by volume: a binding stays while the pod is here.
    bound: HashMap<String, Arc<PersistentVolume>>,
}

impl Volumes {
    /// Makes every volume of the pod, or brings its contents up to date. `ips` are the pod's addresses.
    pub async fn set_up(&mut self, host: &Host, pod: &Pod, ips: &[String]) -> Result<Paths, VolumeError> {
        let mut paths = Paths::new();
        // Images are pulled and mounted with the containers that want them.
        for volume in spec(pod).volumes.iter().flatten().filter(|volume| volume.image.is_none()) {
            let path = match pintle_storage::claim_of(pod, volume) {
                Some(used) => self.claimed(host, pod, volume, &used).await?,
                None => {
                    let path = self.one(host, pod, volume, ips).await;
                    path.map_err(|why| VolumeError { volume: volume.name.clone(), why })?
                }
            };
            paths.insert(volume.name.clone(), path);
        }
        Ok(paths)
    }

    async fn claimed(
        &mut self,
        host: &Host,
        pod: &Pod,
        volume: &Volume,
        used: &ClaimUse,
    ) -> Result<PathBuf, VolumeError> {
        let bound = match self.bound.get(&volume.name) {
            Some(known) => Arc::clone(known),
            None => {
                let found = claims::bound(host, pod, volume, used).await?;
                self.bound.insert(volume.name.clone(), Arc::clone(&found));
                found
            }
        };
        let device = is_device(pod, &volume.name);
        let path = claims::set_up(host, pod, &bound, used.read_only, device).await;
        let path = path.map_err(|why| VolumeError { volume: bound.name().to_owned(), why })?;
        if !device && claims::is_measured(&bound) {
            host.claimed.note(pod.uid(), &volume.name, path.clone());
        }
        Ok(path)
    }

    async fn one(&mut self, host: &Host, pod: &Pod, volume: &Volume, ips: &[String]) -> Result<PathBuf, Why> {
        if !is_plain_name(&volume.name) {
            return Err(Why::Invalid(format!("{:?} is no name of a volume", volume.name)));
        }
        let dir = |plugin: &str| host.volumes_dir(pod.uid()).join(plugin).join(&volume.name);
        if let Some(source) = &volume.host_path {
            return host_path::set_up(source);
        }
        if let Some(source) = &volume.empty_dir {
            let path = dir("kubernetes.io~empty-dir");
            empty_dir::set_up(host, pod, source, &path)?;
            return Ok(path);
        }
        if let Some(source) = &volume.nfs {
            let path = dir("kubernetes.io~nfs");
            nfs::set_up(host, source, &[], false, &path).await?;
            return Ok(path);
        }
        let Some((plugin, in_memory)) = payload::plugin(volume) else {
            return Err(Why::Unsupported(kind_of(volume)));
        };
        let path = dir(plugin);
        let payload = payload::collect(host, pod, volume, ips, &mut self.tokens).await?;
        let hash = payload.hash();
        if self.written.get(&volume.name) == Some(&hash) && path.is_dir() {
            return Ok(path);
        }
        std::fs::create_dir_all(&path).map_err(Why::file("make directory", &path))?;
        if in_memory {
            host.mounter.tmpfs(&path, None).map_err(Why::file("mount a tmpfs on", &path))?;
        }
        let group = ownership::fs_group(pod);
        atomic::write(&path, &payload, group, host.clock.now())?;
        self.written.insert(volume.name.clone(), hash);
        Ok(path)
    }
}

/// Whether a container wants the volume as a block device.
fn is_device(pod: &Pod, volume: &str) -> bool {
    let mut containers = lasting_containers(pod).map(|(_, container)| container);
    containers.any(|container| container.volume_devices.iter().flatten().any(|device| device.name == volume))
}

/// Whether no container of the pod may write to a volume, whatever its mounts say.
pub fn is_read_only(pod: &Pod, name: &str) -> bool {
    let Some(volume) = spec(pod).volumes.iter().flatten().find(|volume| volume.name == name) else { return false };
    // What comes from the API is only ours to change (CVE-2017-1002102).
    let claim = volume.persistent_volume_claim.as_ref().and_then(|source| source.read_only);
    let nfs = volume.nfs.as_ref().and_then(|source| source.read_only);
    volume.image.is_some() || payload::plugin(volume).is_some() || claim == Some(true) || nfs == Some(true)
}

/// Unmounts a pod's volumes and removes the directory that holds them. Blocks.
pub fn tear_down(mounter: &dyn Mounter, volumes: &Path) -> std::io::Result<()> {
    for plugin in entries(volumes)? {
        for volume in entries(&plugin)? {
            mounter.unmount(&volume)?;
        }
    }
    remove_tree(volumes)
}

/// Removes a directory with everything in it; one that is not there is fine.
pub fn remove_tree(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(list) => list.map(|entry| entry.map(|e| e.path())).collect(),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(vec![])
        }
        Err(error) => Err(error),
    }
}

/// The name of a volume's kind, as its spec spells it.
fn kind_of(volume: &Volume) -> &'static str {
    let kinds =
        [(volume.iscsi.is_some(), "iscsi"), (volume.csi.is_some(), "csi"), (volume.git_repo.is_some(), "gitRepo")];
    kinds.iter().find(|(there, _)| *there).map_or("unknown", |(_, name)| name)
}
