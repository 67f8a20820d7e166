//! The Engine's image calls.

use crate::State;
use crate::answer::{Answer, Failure, bytes, value};
use crate::route::Query;
use futures::TryStreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pintle_image::{ImageError, ImageRecord, ImageStore, Reference};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// The store works on the disk, so its work is done on a blocking thread.
async fn blocking<T: Send + 'static>(
    state: &State,
    work: impl FnOnce(&ImageStore) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, Failure> {
    let images = Arc::clone(&state.images);
    let done = tokio::task::spawn_blocking(move || work(&images)).await;
    Ok(done.map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??)
}

/// `redis:7` rather than `docker.io/library/redis:7`.
pub(crate) fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

fn created_seconds(record: &ImageRecord) -> i64 {
    let text = record.configuration.created().clone().unwrap_or_default();
    text.parse::<pintle_clock::Timestamp>().map_or(0, |time| time.as_second())
}

pub(crate) fn list(state: &State) -> Answer {
    let mut images = state.images.list();
    images.sort_by_key(|record| std::cmp::Reverse(created_seconds(record)));
    let shown: Vec<Value> = images
        .iter()
        .map(|record| {
            json!({
                "Id": record.id,
                "ParentId": "",
                "RepoTags": record.tags.iter().map(|t| familiar(t)).collect::<Vec<_>>(),
                "RepoDigests": record.digests.iter().map(|d| familiar(d)).collect::<Vec<_>>(),
                "Created": created_seconds(record),
                "Size": record.size,
                "SharedSize": -1,
                "Labels": record.configuration.config().as_ref().and_then(|c| c.labels().clone()),
                "Containers": -1,
            })
        })
        .collect();
    value(&json!(shown))
}

fn find(state: &State, name: &str) -> Result<ImageRecord, Failure> {
    state.images.resolve(name).ok_or_else(|| ImageError::NotFound(familiar(name)).into())
}

pub(crate) fn inspect(state: &State, name: &str) -> Result<Answer, Failure> {
    let record = find(state, name)?;
    Ok(value(&json!({
        "Id": record.id,
        "RepoTags": record.tags.iter().map(|t| familiar(t)).collect::<Vec<_>>(),
        "RepoDigests": record.digests.iter().map(|d| familiar(d)).collect::<Vec<_>>(),
        "Created": record.configuration.created(),
        "Architecture": record.configuration.architecture(),
        "Os": record.configuration.os(),
        "Size": record.size,
        "Config": record.configuration.config(),
        "RootFS": { "Type": "layers", "Layers": record.configuration.rootfs().diff_ids() },
    })))
}

pub(crate) async fn load(state: &State, body: Incoming) -> Result<Answer, Failure> {
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    let reader = SyncIoBridge::new(StreamReader::new(stream));
    let loaded = blocking(state, move |images| images.load(reader)).await?;
    let mut lines = String::new();
    for image in loaded {
        let names = image.tags.iter().map(|tag| format!("Loaded image: {}\n", familiar(tag)));
        let named: Vec<String> = names.collect();
        let told = if named.is_empty() { vec![format!("Loaded image ID: {}\n", image.id)] } else { named };
        told.into_iter().for_each(|line| lines += &format!("{}\r\n", json!({ "stream": line })));
    }
    Ok(bytes(StatusCode::OK, "application/json", lines))
}

pub(crate) async fn tag(state: &State, image: String, query: &Query) -> Result<Answer, Failure> {
    find(state, &image)?;
    let name = match (query.get("repo"), query.get("tag")) {
        (repo, "") => repo.to_owned(),
        (repo, tag) => format!("{repo}:{tag}"),
    };
    blocking(state, move |images| images.tag(&image, &name)).await?;
    Ok(bytes(StatusCode::CREATED, "application/json", ""))
}

pub(crate) async fn remove(state: &State, name: String) -> Result<Answer, Failure> {
    find(state, &name)?;
    let removed = blocking(state, move |images| images.remove(&name)).await?;
    let told: Vec<Value> = removed
        .iter()
        .map(|what| {
            if what.starts_with("sha256:") { json!({ "Deleted": what }) } else { json!({ "Untagged": familiar(what) }) }
        })
        .collect();
    Ok(value(&json!(told)))
}
