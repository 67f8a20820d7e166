//! The verbs of `ImageService`, asked of the other process.

use super::{RemoteRuntime, missing};
use crate::convert::{Subject, of_usage};
use crate::messages as m;
use async_trait::async_trait;
use pintle_cri::{AuthConfig, CriResult, FilesystemUsage, Image, ImageService};

fn subject(image: &str) -> Subject<'_> {
    Subject { what: "image", id: image }
}

fn spec(image: &str) -> Option<m::ImageSpec> {
    Some(m::ImageSpec { image: image.to_owned(), ..Default::default() })
}

#[async_trait]
impl ImageService for RemoteRuntime {
    async fn list_images(&self) -> CriResult<Vec<Image>> {
        let told: m::ListImagesResponse =
            self.image("ListImages", m::ListImagesRequest { filter: None }, subject("")).await?;
        Ok(told.images.into_iter().map(Into::into).collect())
    }

    async fn image_status(&self, image: &str) -> CriResult<Option<Image>> {
        let asked = m::ImageStatusRequest { image: spec(image), verbose: false };
        let told: m::ImageStatusResponse = self.image("ImageStatus", asked, subject(image)).await?;
        Ok(told.image.map(Into::into))
    }

    async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> CriResult<String> {
        let asked = m::PullImageRequest { image: spec(image), auth: auth.map(Into::into), sandbox_config: None };
        // However long it takes: the runtime gives up when nothing comes any more.
        let method = "/runtime.v1.ImageService/PullImage";
        let told: m::PullImageResponse = self.call(method, asked, subject(image), None).await?;
        Ok(told.image_ref)
    }

    async fn remove_image(&self, image: &str) -> CriResult<()> {
        let asked = m::RemoveImageRequest { image: spec(image) };
        self.image("RemoveImage", asked, subject(image)).await.map(|_: m::RemoveImageResponse| ())
    }

    async fn image_fs_info(&self) -> CriResult<FilesystemUsage> {
        let told: m::ImageFsInfoResponse = self.image("ImageFsInfo", m::ImageFsInfoRequest {}, subject("")).await?;
        told.image_filesystems.into_iter().next().map(of_usage).ok_or_else(|| missing("filesystem"))
    }
}
