//! The verbs of `ImageService`.

use super::{Served, done, in_chunks};
use crate::convert::{fs_usage, of_cri};
use crate::messages as m;
use pintle_cri::Image;
use pintle_grpc::{Answer, Call, Status};

fn named(spec: Option<m::ImageSpec>) -> Result<String, Status> {
    let image = spec.unwrap_or_default().image;
    if image.is_empty() { Err(Status::invalid("the image is missing")) } else { Ok(image) }
}

impl Served {
    pub(super) async fn image_call(&self, verb: &str, call: &Call) -> Result<Answer, Status> {
        let runtime = &self.runtime;
        match verb {
            "ListImages" => {
                let asked: m::ListImagesRequest = call.request()?;
                let images = self.images(asked.filter).await?;
                Ok(Answer::once(&m::ListImagesResponse { images: images.into_iter().map(Into::into).collect() }))
            }
            "StreamImages" => {
                let asked: m::StreamImagesRequest = call.request()?;
                Ok(in_chunks(self.images(asked.filter).await?, |images| m::StreamImagesResponse {
                    images: images.into_iter().map(Into::into).collect(),
                }))
            }
            "ImageStatus" => {
                let asked: m::ImageStatusRequest = call.request()?;
                let found = runtime.image_status(&named(asked.image)?).await;
                done(
                    found
                        .map(|found| m::ImageStatusResponse { image: found.map(Into::into), info: Default::default() }),
                )
            }
            "PullImage" => {
                let asked: m::PullImageRequest = call.request()?;
                let auth = asked.auth.map(TryInto::try_into).transpose()?;
                let pulled = runtime.pull_image(&named(asked.image)?, auth).await;
                done(pulled.map(|image_ref| m::PullImageResponse { image_ref }))
            }
            "RemoveImage" => {
                let asked: m::RemoveImageRequest = call.request()?;
                done(runtime.remove_image(&named(asked.image)?).await.map(|()| m::RemoveImageResponse {}))
            }
            "ImageFsInfo" => {
                let usage = runtime.image_fs_info().await.map_err(of_cri)?;
                // Writable layers lie in the same place as images.
                Ok(Answer::once(&m::ImageFsInfoResponse {
                    image_filesystems: vec![fs_usage(usage.clone())],
                    container_filesystems: vec![fs_usage(usage)],
                }))
            }
            _ => Err(Status::unknown_method(&call.method)),
        }
    }

    async fn images(&self, filter: Option<m::ImageFilter>) -> Result<Vec<Image>, Status> {
        let wanted = filter.and_then(|filter| filter.image).map(|spec| spec.image).unwrap_or_default();
        if wanted.is_empty() {
            return self.runtime.list_images().await.map_err(of_cri);
        }
        Ok(self.runtime.image_status(&wanted).await.map_err(of_cri)?.into_iter().collect())
    }
}
