//! Forwards connections to ports of a pod.

use super::query::Query;
use super::{Body, Refusal, State, respond};
use crate::observed::Observed;
use crate::streams::{PortStream, StreamError};
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pintle_cri::Runtime;
use std::sync::Arc;

pub async fn answer(
    state: &State,
    namespace: &str,
    pod: &str,
    uid: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let parsed: Result<Vec<u16>, _> =
        query.all("port").iter().chain(&query.all("ports")).flat_map(|p| p.split(',')).map(str::parse).collect();
    let Ok(ports) = parsed else { return respond::text(StatusCode::BAD_REQUEST, "a port is not a number up to 65535") };
    let sandbox = match sandbox(state, namespace, pod, uid).await {
        Ok(sandbox) => sandbox,
        Err(refusal) => return *refusal,
    };
    let (response, connections) = match state.streaming.port_forward(request, &ports) {
        Ok(upgrade) => upgrade,
        Err(StreamError(message)) => return respond::text(StatusCode::BAD_REQUEST, message),
    };
    let runtime = Arc::clone(&state.host.runtime);
    state.spawn(async move {
        match connections.await {
            // Ends with the client's connection, and with it all that it forwarded.
            Ok(connections) => {
                connections.for_each_concurrent(None, |c| forward(Arc::clone(&runtime), sandbox.clone(), c)).await;
            }
            Err(error) => tracing::debug!(%error, "a client did not go through with its upgrade"),
        }
    });
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

async fn sandbox(state: &State, namespace: &str, pod: &str, uid: &str) -> Result<String, Refusal> {
    let pod = state.pod(namespace, pod, uid)?;
    let observed = Observed::of(state.host.runtime.as_ref(), pintle_types::Kind::uid(pod.as_ref())).await;
    let observed = observed.map_err(|e| respond::refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let ready = observed.ready_sandbox().map(|s| s.id.clone());
    ready.ok_or_else(|| respond::refuse(StatusCode::NOT_FOUND, "the pod has no sandbox that is ready"))
}

async fn forward(runtime: Arc<dyn Runtime>, sandbox: String, stream: PortStream) {
    let PortStream { port, data, error } = stream;
    pintle_streaming::forward(runtime.as_ref(), &sandbox, port, data, error).await;
}
