//! Sets up the volumes of a pod and keeps their contents current.
//!
//! A volume is a directory below the pod's directory, named as upstream names it (`kubernetes.io~configmap/NAME`), or
//! a path of the host. What comes from the API is written atomically and again whenever it differs; the rest is made
//! once. Everything is found again by its path, so nothing has to be remembered over a restart.

mod atomic;
mod empty_dir;
mod host_path;
mod mounter;
mod ownership;
mod payload;
mod sub_path;
mod tokens;

pub use mounter::{Mounter, SystemMounter};
pub use payload::references;
pub use sub_path::prepare as prepare_sub_path;
pub use tokens::Tokens;

use crate::api::ApiError;
use crate::field_ref::FieldError;
use crate::host::{Host, is_plain_name};
use crate::reference::spec;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Pod, Volume};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A volume that could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
pub struct VolumeError {
    pub volume: String,
    pub why: Why,
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
}

impl Volumes {
    /// Makes every volume of the pod, or brings its contents up to date. `ips` are the pod's addresses.
    pub async fn set_up(&mut self, host: &Host, pod: &Pod, ips: &[String]) -> Result<Paths, VolumeError> {
        let mut paths = Paths::new();
        for volume in spec(pod).volumes.iter().flatten() {
            let path = self.one(host, pod, volume, ips).await;
            let path = path.map_err(|why| VolumeError { volume: volume.name.clone(), why })?;
            paths.insert(volume.name.clone(), path);
        }
        Ok(paths)
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
    let kinds = [
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
        (volume.git_repo.is_some(), "gitRepo"),
    ];
    kinds.iter().find(|(there, _)| *there).map_or("unknown", |(_, name)| name)
}
