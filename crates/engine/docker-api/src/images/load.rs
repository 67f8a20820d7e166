//! Brings images in from archives.

use super::{blocking, familiar};
use crate::State;
use crate::answer::{Result, bytes};
use crate::call::Call;
use futures::TryStreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Arc;
use tokio_util::io::{StreamReader, SyncIoBridge};

pub(crate) async fn load(state: &Arc<State>, mut call: Call) -> Result {
    let stream = call.body()?.into_data_stream().map_err(std::io::Error::other);
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
