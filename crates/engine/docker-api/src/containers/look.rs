//! Lists and shows containers.

use super::pods;
use crate::State;
use crate::answer::{Result, value};
use crate::call::Call;
use pintle_docker::DockerError;
use pintle_docker::containers::ListOptions;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn list(state: &Arc<State>, call: &Call) -> Result {
    let query = &call.query;
    let limit = query.number("limit")?.unwrap_or_default();
    let options = ListOptions {
        all: query.flag("all"),
        limit: usize::try_from(limit).unwrap_or_default(),
        size: query.flag("size"),
        filters: query.filters()?,
    };
    let plain = options.filters.is_empty() && options.limit == 0;
    let all = options.all;
    // Sizes are read from the disk.
    let daemon = Arc::clone(&state.daemon);
    let listed = tokio::task::spawn_blocking(move || daemon.list_containers(options)).await;
    let mut listed: Vec<Value> =
        listed.map_err(|e| DockerError::internal(e.to_string()))??.iter().map(|s| json!(s)).collect();
    if plain {
        listed.extend(pods::summaries(state, all).await?);
        listed.sort_by_key(|s| std::cmp::Reverse(s["Created"].as_i64()));
    }
    value(&listed)
}

pub(crate) fn inspect(state: &Arc<State>, call: &Call, id: &str) -> Result {
    value(&state.daemon.inspect_container(id, call.query.flag("size"))?)
}

pub(crate) async fn top(state: &Arc<State>, call: &Call, id: &str) -> Result {
    let top = state.daemon.top(id, call.query.get("ps_args")).await?;
    value(&json!({ "Processes": top.processes, "Titles": top.titles }))
}

pub(crate) async fn changes(state: &Arc<State>, id: &str) -> Result {
    let changes = state.daemon.container_changes(id).await?;
    let shown: Vec<Value> = changes.iter().map(|c| json!({ "Path": c.path, "Kind": c.kind as u8 })).collect();
    if shown.is_empty() { value(&Value::Null) } else { value(&shown) }
}
