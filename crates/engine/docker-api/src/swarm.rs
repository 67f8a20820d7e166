//! What is not there, refused in the Engine's own words: swarm mode, plugins, checkpoints, sessions.

use crate::answer::{Result, json_with};
use crate::call::Call;
use crate::route::not_found;
use http::{Method, StatusCode};
use pintle_docker::DockerError;
use serde_json::json;

const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                          connect this node to swarm and try again.";

pub(crate) fn route(call: &Call, parts: &[&str]) -> Result {
    match (&call.method, parts) {
        (&Method::POST, ["swarm", "leave"]) => Err(DockerError::new(503, "This node is not part of a swarm")),
        (&Method::POST, ["swarm", "init" | "join"]) => Err(DockerError::unsupported("swarm mode")),
        (_, ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => {
            Err(DockerError::new(503, NO_MANAGER))
        }
        (&Method::GET, ["plugins"]) => json_with(StatusCode::OK, &json!([])),
        (&Method::GET, ["plugins", name @ .., "json"]) => {
            Err(DockerError::not_found(format!("plugin \"{}\" not found", name.join("/"))))
        }
        (_, ["plugins", ..]) => Err(DockerError::unsupported("a plugin")),
        (_, ["session" | "grpc"]) => Err(DockerError::unsupported("a BuildKit session")),
        _ => Err(not_found()),
    }
}
