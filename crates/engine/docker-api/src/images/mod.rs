//! The Engine's calls on images, a file for each group of them.

pub(crate) mod commit;
mod load;

use crate::State;
use crate::answer::Result;
use crate::call::Call;
use crate::route::not_found;
use http::Method;
use pintle_docker::DockerError;
use pintle_image::{ImageError, ImageStore, Reference};
use std::sync::Arc;

pub(crate) async fn route(state: &Arc<State>, call: Call, parts: &[&str]) -> Result {
    match (&call.method, parts) {
        (&Method::POST, ["load"]) => load::load(state, call).await,
        _ => Err(not_found()),
    }
}

/// The store works on the disk, so its work is done on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    state: &State,
    work: impl FnOnce(&ImageStore) -> std::result::Result<T, ImageError> + Send + 'static,
) -> Result<T> {
    let images = Arc::clone(&state.images);
    let done = tokio::task::spawn_blocking(move || work(&images)).await;
    Ok(done.map_err(|e| DockerError::internal(e.to_string()))??)
}

/// `redis:7` rather than `docker.io/library/redis:7`.
pub(crate) fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
