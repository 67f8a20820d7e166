//! Copies files in and out of containers, and exports them whole.

use crate::State;
use crate::answer::{Answer, Result, bytes};
use crate::call::Call;
use crate::images::{reader, written};
use base64::Engine;
use http::{HeaderValue, StatusCode};
use pintle_docker::DockerError;
use pintle_docker::containers::record::snapshot_key;
use pintle_docker::containers::{ExtractOptions, PathStat, Record, Source, extract_in, path_in};
use std::sync::Arc;

async fn source(call: &Call, wanted: &str, record: Record) -> Result<Source> {
    let path = call.query.get("path").to_owned();
    if path.is_empty() {
        return Err(DockerError::invalid("bad parameter: path is required"));
    }
    let wanted = wanted.to_owned();
    let found = tokio::task::spawn_blocking(move || path_in(&record, &wanted, &path)).await;
    found.map_err(|e| DockerError::internal(e.to_string()))?
}

fn with_stat(mut answer: Answer, stat: &PathStat) -> Result {
    let text = serde_json::to_vec(stat).map_err(|e| DockerError::internal(e.to_string()))?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let header = HeaderValue::from_str(&encoded).map_err(|e| DockerError::internal(e.to_string()))?;
    answer.headers_mut().insert("x-docker-container-path-stat", header);
    Ok(answer)
}

/// What is at a path of the container that the record tells of, and that the client calls `wanted`.
pub(crate) async fn head(call: &Call, wanted: &str, record: Record) -> Result {
    let source = source(call, wanted, record).await?;
    with_stat(bytes(StatusCode::OK, "", ""), &source.stat)
}

pub(crate) async fn get(state: &Arc<State>, call: &Call, wanted: &str, record: Record) -> Result {
    let id = record.id.clone();
    let source = source(call, wanted, record).await?;
    state.daemon.note_copy(&id, "archive-path");
    let stat = source.stat.clone();
    with_stat(written("application/x-tar", move |target| source.write(target)), &stat)
}

pub(crate) async fn put(state: &Arc<State>, mut call: Call, wanted: &str, record: Record) -> Result {
    let path = call.query.get("path").to_owned();
    let options = ExtractOptions {
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        keep_owners: call.query.flag("copyUIDGID"),
    };
    let body = reader(&mut call)?;
    let (id, wanted) = (record.id.clone(), wanted.to_owned());
    let done = tokio::task::spawn_blocking(move || extract_in(&record, &wanted, &path, body, options));
    done.await.map_err(|e| DockerError::internal(e.to_string()))??;
    state.daemon.note_copy(&id, "extract-to-dir");
    Ok(bytes(StatusCode::OK, "", ""))
}

pub(crate) fn export(state: &Arc<State>, id: &str) -> Result {
    let container = state.daemon.container(id)?;
    state.daemon.note_export(&container);
    let (images, key) = (Arc::clone(&state.images), snapshot_key(&container.id));
    Ok(written("application/x-tar", move |target| images.export(&key, target).map_err(std::io::Error::other)))
}
