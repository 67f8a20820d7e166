//! Makes containers.

use crate::State;
use crate::answer::{Result, json_with};
use crate::call::Call;
use http::StatusCode;
use pintle_docker::DockerError;
use pintle_docker::containers::CreateRequest;
use pintle_docker::model::{Config, HostConfig, NetworkingConfig};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    #[serde(flatten)]
    config: Option<Config>,
    host_config: HostConfig,
    networking_config: NetworkingConfig,
}

pub(crate) async fn create(state: &Arc<State>, mut call: Call) -> Result {
    let body: Body = call.json().await?;
    let config = body.config.filter(|c| *c != Config::default());
    let config = config.ok_or_else(|| DockerError::invalid("config cannot be empty in order to create a container"))?;
    let request = CreateRequest {
        name: call.query.get("name").to_owned(),
        platform: call.query.get("platform").to_owned(),
        config,
        host: body.host_config,
        networking: body.networking_config,
        ..CreateRequest::default()
    };
    let made = state.daemon.create_container(request).await?;
    json_with(StatusCode::CREATED, &json!({ "Id": made.id, "Warnings": made.warnings }))
}
