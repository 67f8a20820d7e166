//! The Engine's calls on networks.

use crate::State;
use crate::answer::{Result, bytes, json_with, value};
use crate::call::Call;
use crate::route::not_found;
use http::{Method, StatusCode};
use pintle_docker::DockerError;
use pintle_docker::containers::pattern_fits;
use pintle_docker::model::EndpointSettings;
use pintle_docker::networks::{CreateRequest, NetworkView};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

type Filters = HashMap<String, Vec<String>>;

/// The body of connect and disconnect.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Connection {
    container: String,
    endpoint_config: EndpointSettings,
    force: bool,
}

pub(crate) async fn route(state: &Arc<State>, mut call: Call, parts: &[&str]) -> Result {
    let method = call.method.clone();
    match (&method, parts) {
        (&Method::GET, [] | [""]) => list(state, &call),
        (&Method::POST, ["create"]) => create(state, &mut call).await,
        (&Method::POST, ["prune"]) => prune(state, &call).await,
        (&Method::GET, [name]) => inspect(state, &call, name),
        (&Method::DELETE, [name]) => remove(state, name).await,
        (&Method::POST, [name, "connect"]) => {
            let body: Connection = call.json().await?;
            state.daemon.connect_network(name, &body.container, body.endpoint_config).await?;
            Ok(bytes(StatusCode::OK, "application/json", ""))
        }
        (&Method::POST, [name, "disconnect"]) => {
            let body: Connection = call.json().await?;
            state.daemon.disconnect_network(name, &body.container, body.force).await?;
            Ok(bytes(StatusCode::OK, "application/json", ""))
        }
        _ => Err(not_found()),
    }
}

/// The kernel's work blocks for milliseconds.
async fn blocking<T: Send + 'static>(
    state: &State,
    work: impl FnOnce(&pintle_docker::networks::Networks) -> Result<T> + Send + 'static,
) -> Result<T> {
    let networks = Arc::clone(&state.daemon.networks);
    let done = tokio::task::spawn_blocking(move || work(&networks)).await;
    done.map_err(|e| DockerError::internal(format!("work on networks: {e}")))?
}

fn list(state: &State, call: &Call) -> Result {
    let filters = call.query.filters()?;
    const KNOWN: [&str; 8] = ["dangling", "driver", "id", "label", "name", "scope", "type", "until"];
    refuse_unknown(&filters, &KNOWN)?;
    let mut shown: Vec<Value> = Vec::new();
    for view in state.daemon.networks.list() {
        if matches(&view, &filters)? {
            shown.push(view.to_json(false));
        }
    }
    value(&shown)
}

fn refuse_unknown(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(DockerError::invalid(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

/// `key` or `key=value`.
fn has_label(labels: &std::collections::BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

fn matches(view: &NetworkView, filters: &Filters) -> Result<bool> {
    let predefined = matches!(view.name.as_str(), "bridge" | "host" | "none");
    for (key, values) in filters {
        let any = |test: &dyn Fn(&str) -> bool| values.is_empty() || values.iter().any(|v| test(v));
        let fits = match key.as_str() {
            "driver" => any(&|v| view.driver == v),
            "id" => any(&|v| view.id.starts_with(v)),
            "name" => any(&|v| pattern_fits(v, &view.name)),
            "scope" => any(&|v| v == "local"),
            "label" => values.iter().all(|v| has_label(&view.labels, v)),
            "type" => {
                if let Some(value) = values.iter().find(|v| !matches!(v.as_str(), "builtin" | "custom")) {
                    return Err(DockerError::invalid(format!("invalid filter: 'type'='{value}'")));
                }
                any(&|v| (v == "builtin") == predefined)
            }
            "dangling" => {
                let unused = !predefined && view.endpoints.is_empty();
                any(&|v| matches!(v, "true" | "1") == unused)
            }
            _ => true,
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn create(state: &State, call: &mut Call) -> Result {
    let request: CreateRequest = call.json().await?;
    let id = blocking(state, move |networks| networks.create(&request)).await?;
    tell(state, &state.daemon.networks.inspect(&id)?, "create");
    json_with(StatusCode::CREATED, &json!({ "Id": id, "Warning": "" }))
}

fn tell(state: &State, view: &NetworkView, action: &str) {
    state.daemon.events.tell("network", action, &view.id, view.attributes());
}

fn inspect(state: &State, call: &Call, name: &str) -> Result {
    if !matches!(call.query.get("scope"), "" | "local") {
        return Err(DockerError::not_found(format!("network {name} not found")));
    }
    value(&state.daemon.networks.inspect(name)?.to_json(true))
}

async fn remove(state: &State, name: &str) -> Result {
    let name = name.to_owned();
    let view = blocking(state, move |networks| networks.remove(&name)).await?;
    tell(state, &view, "destroy");
    Ok(bytes(StatusCode::NO_CONTENT, "application/json", ""))
}

async fn prune(state: &State, call: &Call) -> Result {
    let filters = call.query.filters()?;
    refuse_unknown(&filters, &["label", "label!", "until"])?;
    let until = crate::volumes::until(&filters, state.daemon.now())?;
    let mut gone = Vec::new();
    for view in state.daemon.networks.list() {
        let predefined = matches!(view.name.as_str(), "bridge" | "host" | "none");
        let wanted = filters.get("label").is_none_or(|all| all.iter().all(|l| has_label(&view.labels, l)));
        let spared = filters.get("label!").is_some_and(|all| all.iter().any(|l| has_label(&view.labels, l)));
        let reserved = state
            .daemon
            .all_containers()
            .iter()
            .any(|c| c.look(|r| r.networks.iter().any(|(name, s)| *name == view.name || s.network_id == view.id)));
        if predefined || !wanted || spared || reserved || until.is_some_and(|limit| view.created > limit) {
            continue;
        }
        let id = view.id.clone();
        match blocking(state, move |networks| networks.remove(&id)).await {
            Ok(view) => {
                tell(state, &view, "destroy");
                gone.push(view.name);
            }
            // Somebody has begun to use it.
            Err(error) => tracing::debug!(network = view.name, %error, "a network is not pruned"),
        }
    }
    value(&json!({ "NetworksDeleted": if gone.is_empty() { Value::Null } else { json!(gone) } }))
}
