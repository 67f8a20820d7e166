//! Starts, stops, restarts, kills and removes containers.

use crate::State;
use crate::answer::{Result, nothing, value};
use crate::call::Call;
use pintle_docker::containers::{RemoveOptions, StopOptions, Update};
use pintle_docker::model::HostConfig;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn start(state: &Arc<State>, id: &str) -> Result {
    // A client that goes does not stop a start half way.
    let (daemon, id) = (Arc::clone(&state.daemon), id.to_owned());
    detached(async move { daemon.start_container(&id).await }).await?;
    nothing()
}

fn stop_options(call: &Call) -> Result<StopOptions> {
    Ok(StopOptions { signal: call.query.get("signal").to_owned(), timeout: call.query.number("t")? })
}

pub(crate) async fn stop(state: &Arc<State>, call: &Call, id: &str) -> Result {
    state.daemon.stop_container(id, &stop_options(call)?).await?;
    nothing()
}

pub(crate) async fn restart(state: &Arc<State>, call: &Call, id: &str) -> Result {
    let (daemon, id, options) = (Arc::clone(&state.daemon), id.to_owned(), stop_options(call)?);
    detached(async move { daemon.restart_container(&id, &options).await }).await?;
    nothing()
}

pub(crate) async fn kill(state: &Arc<State>, call: &Call, id: &str) -> Result {
    state.daemon.kill_container(id, call.query.get("signal")).await?;
    nothing()
}

pub(crate) async fn remove(state: &Arc<State>, call: &Call, id: &str) -> Result {
    let query = &call.query;
    let options = RemoveOptions { force: query.flag("force"), volumes: query.flag("v"), link: query.flag("link") };
    let (daemon, id) = (Arc::clone(&state.daemon), id.to_owned());
    detached(async move { daemon.remove_container(&id, options).await }).await?;
    nothing()
}

/// Does work to its end, whether the client waits for it or not.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let done = tokio::spawn(work).await;
    done.map_err(|e| pintle_docker::DockerError::internal(e.to_string()))?
}

pub(crate) async fn pause(state: &Arc<State>, id: &str, paused: bool) -> Result {
    match paused {
        true => state.daemon.pause_container(id).await?,
        false => state.daemon.unpause_container(id).await?,
    }
    nothing()
}

pub(crate) fn rename(state: &Arc<State>, call: &Call, id: &str) -> Result {
    state.daemon.rename_container(id, call.query.get("name"))?;
    nothing()
}

pub(crate) async fn update(state: &Arc<State>, mut call: Call, id: &str) -> Result {
    let resources: HostConfig = call.json().await?;
    let update = Update { restart_policy: resources.restart_policy.clone(), resources };
    let warnings = state.daemon.update_container(id, &update).await?;
    value(&json!({ "Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) } }))
}

pub(crate) async fn prune(state: &Arc<State>, call: &Call) -> Result {
    let filters = call.query.filters()?;
    let until = filters.get("until").and_then(|v| v.first());
    let until = until.map(|text| crate::times::parse(text, state.daemon.now())).transpose()?;
    let (removed, bytes) = state.daemon.prune_containers(&filters, until).await?;
    let removed = if removed.is_empty() { Value::Null } else { json!(removed) };
    value(&json!({ "ContainersDeleted": removed, "SpaceReclaimed": bytes }))
}
