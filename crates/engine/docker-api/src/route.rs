//! Which request is answered by what: the first part of the path names the file that knows the rest.

use crate::answer::{Answer, Result, failure};
use crate::call::Call;
use crate::{State, auth, build, containers, distribution, exec, images, networks, swarm, system, volumes};
use http::Request;
use hyper::body::Incoming;
use pintle_docker::DockerError;
use std::convert::Infallible;
use std::sync::Arc;

pub(crate) async fn answer(state: Arc<State>, request: Request<Incoming>) -> std::result::Result<Answer, Infallible> {
    Ok(dispatch(&state, request).await.unwrap_or_else(|error| failure(&error)))
}

async fn dispatch(state: &Arc<State>, request: Request<Incoming>) -> Result {
    let mut call = Call::new(request)?;
    let parts = call.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["_ping" | "version" | "info" | "events"] | ["system", ..] => system::route(state, call, &parts).await,
        ["auth"] => auth::route(state, &mut call).await,
        ["containers", rest @ ..] => containers::route(state, call, rest).await,
        ["exec", rest @ ..] => exec::route(state, call, rest).await,
        ["images", rest @ ..] => images::route(state, call, rest).await,
        ["commit"] => images::commit::commit(state, call).await,
        ["distribution", name @ .., "json"] => distribution::inspect(state, &call, &name.join("/")).await,
        ["networks", rest @ ..] => networks::route(state, call, rest).await,
        ["volumes", rest @ ..] => volumes::route(state, call, rest).await,
        ["build", rest @ ..] => build::route(state, call, rest).await,
        _ => swarm::route(&call, &parts),
    }
}

/// There is no such route.
pub(crate) fn not_found() -> DockerError {
    DockerError::not_found("page not found")
}
