//! Answers the cluster's own provisioner: makes and removes the directories of volumes on this node.

use super::{Body, State, respond};
use crate::volumes::local_path;
use http::{Method, Response, StatusCode};
use serde_json::json;

pub async fn answer(state: &State, method: &Method, volume: &str) -> Response<Body> {
    let (root, volume) = (state.host.settings.root_dir.clone(), volume.to_owned());
    let make = *method == Method::PUT;
    let work = move || {
        let made = if make {
            local_path::make(&root, &volume).map(|path| json!({ "path": path.to_string_lossy() }))
        } else {
            local_path::remove(&root, &volume).map(|()| json!({}))
        };
        made.map_err(|error| format!("directory of volume {volume}: {error}"))
    };
    match state.host.hardware.blocking(work).await {
        Ok(answer) => respond::json(answer.to_string()),
        Err(error) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}
