//! What a container changed of its image, its whole root file system, and images made of it.

use super::Container;
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use std::sync::Arc;

pub use pintle_image::Change;

impl Daemon {
    /// What `docker diff` lists.
    pub async fn container_changes(&self, wanted: &str) -> Result<Vec<Change>> {
        let key = self.container(wanted)?.look(super::Record::snapshot_key);
        let images = Arc::clone(&self.images);
        let compared = tokio::task::spawn_blocking(move || images.diff(&key)).await;
        Ok(compared.map_err(|e| DockerError::io("compare a layer", e))??)
    }

    /// An image was made of a container.
    pub fn note_commit(&self, container: &Container, image_id: &str, name: &str) {
        self.tell_of(container, "commit", &[("comment", name), ("imageID", image_id), ("imageRef", name)]);
    }

    /// A container's root file system is being written out.
    pub fn note_export(&self, container: &Container) {
        self.tell_of(container, "export", &[]);
    }

    /// An image by name or id.
    ///
    /// # Errors
    /// 404 in Docker's words.
    pub fn image(&self, name: &str) -> Result<pintle_image::ImageRecord> {
        self.image_of(name, "")
    }
}
