//! The Engine's calls on images, a file for each group of them.

pub(crate) mod commit;
pub(crate) mod create;
mod inspect;
mod list;
pub(crate) mod load;
mod push;
mod remove;
mod search;
pub(crate) mod told;

use crate::State;
use crate::answer::{Result, bytes, value};
use crate::call::Call;
use crate::route::not_found;
use http::{Method, StatusCode};
use pintle_docker::DockerError;
use pintle_image::{ImageError, ImageStore, Reference};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use list::summaries;
pub(crate) use load::{reader, written};

pub(crate) async fn route(state: &Arc<State>, call: Call, parts: &[&str]) -> Result {
    match (&call.method, parts) {
        (&Method::GET, ["json"]) => list::list(state, &call),
        (&Method::GET, ["search"]) => search::search(state, &call).await,
        (&Method::GET, ["get"]) => load::save(state, call.query.all("names").to_vec()),
        (&Method::GET, [name @ .., "get"]) => load::save(state, vec![name.join("/")]),
        (&Method::GET, [name @ .., "json"]) => inspect::inspect(state, &name.join("/")),
        (&Method::GET, [name @ .., "history"]) => inspect::history(state, name.join("/")).await,
        (&Method::POST, ["create"]) => create::create(state, call).await,
        (&Method::POST, ["load"]) => load::load(state, call).await,
        (&Method::POST, ["prune"]) => remove::prune(state, &call).await,
        (&Method::POST, [name @ .., "push"]) => push::push(state, &call, &name.join("/")).await,
        (&Method::POST, [name @ .., "tag"]) => tag(state, &call, name.join("/")).await,
        (&Method::DELETE, name) => remove::remove(state, &call, name.join("/")).await,
        _ => Err(not_found()),
    }
}

async fn tag(state: &Arc<State>, call: &Call, image: String) -> Result {
    let id = state.daemon.image(&image)?.id;
    let (repository, tag) = (call.query.get("repo"), call.query.get("tag"));
    let name = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    let reference = reference(&name)?;
    let told = reference.familiar();
    let tagged = id.clone();
    blocking(state, move |images| images.tag(&tagged, &reference.to_string())).await?;
    tell(state, "tag", &id, &told);
    Ok(bytes(StatusCode::CREATED, "", ""))
}

/// A reference that a client wrote.
pub(crate) fn reference(text: &str) -> Result<Reference> {
    let upper = text.split(':').next().is_some_and(|name| name.chars().any(char::is_uppercase));
    text.parse::<Reference>().map_err(|_| {
        let why = if upper { ": repository name must be lowercase" } else { "" };
        DockerError::invalid(format!("invalid reference format{why}"))
    })
}

/// Tells of something that happened to an image.
pub(crate) fn tell(state: &State, action: &str, id: &str, name: &str) {
    let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    state.daemon.events.tell("image", action, id, attributes);
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

/// A list as JSON.
pub(crate) fn items(list: &[serde_json::Value]) -> Result {
    value(&list)
}
