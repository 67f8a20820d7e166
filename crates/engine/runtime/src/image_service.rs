//! Serves the image half of CRI from the image store.

use crate::engine::Engine;
use crate::ports::PortError;
use crate::sandboxes::port_result;
use async_trait::async_trait;
use pintle_cri::{AuthConfig, CriError, CriResult, FilesystemUsage, Image, ImageService};

#[async_trait]
impl ImageService for Engine {
    async fn list_images(&self) -> CriResult<Vec<Image>> {
        port_result(self.images.list().await)
    }

    async fn image_status(&self, image: &str) -> CriResult<Option<Image>> {
        port_result(self.images.status(image).await)
    }

    async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> CriResult<String> {
        match self.images.pull(image, auth).await {
            Err(PortError::NotFound(_)) => Err(CriError::NotFound { what: "image", id: image.to_owned() }),
            other => port_result(other),
        }
    }

    async fn remove_image(&self, image: &str) -> CriResult<()> {
        port_result(self.images.remove(image).await)
    }

    async fn image_fs_info(&self) -> CriResult<FilesystemUsage> {
        port_result(self.images.fs_info().await)
    }
}
