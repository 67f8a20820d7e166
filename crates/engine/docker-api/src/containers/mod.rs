//! The Engine's calls on containers, a file for each group of them.

mod archive;
mod attach;
mod create;
mod life;
mod logs;
mod look;
mod pods;
mod stats;
mod wait;

use crate::State;
use crate::answer::Result;
use crate::call::Call;
use crate::route::not_found;
use http::Method;
use pintle_docker::containers::Record;
use std::sync::Arc;

pub(crate) use attach::size;

/// `docker cp` of the container that the record tells of, and that the client calls `wanted`.
async fn copy(state: &Arc<State>, method: &Method, call: Call, wanted: &str, record: Record) -> Result {
    match *method {
        Method::HEAD => archive::head(&call, wanted, record).await,
        Method::GET => archive::get(state, &call, wanted, record).await,
        Method::PUT => archive::put(state, call, wanted, record).await,
        _ => Err(not_found()),
    }
}

pub(crate) async fn route(state: &Arc<State>, call: Call, parts: &[&str]) -> Result {
    if let [id, rest @ ..] = parts
        && let Some(pod) = pods::find(state, id).await?
    {
        return pods::route(state, call, &pod, rest).await;
    }
    match (&call.method, parts) {
        (&Method::GET, ["json"]) => look::list(state, &call).await,
        (&Method::POST, ["create"]) => create::create(state, call).await,
        (&Method::POST, ["prune"]) => life::prune(state, &call).await,
        (&Method::GET, [id, "json"]) => look::inspect(state, &call, id),
        (&Method::GET, [id, "top"]) => look::top(state, &call, id).await,
        (&Method::GET, [id, "changes"]) => look::changes(state, id).await,
        (&Method::GET, [id, "export"]) => archive::export(state, id),
        (&Method::GET, [id, "logs"]) => logs::logs(state, &call, id),
        (&Method::GET, [id, "stats"]) => stats::stats(state, &call, id).await,
        (method, [id, "archive"]) => {
            let (method, record) = (method.clone(), state.daemon.container(id)?.record());
            copy(state, &method, call, id, record).await
        }
        (&Method::POST, [id, "start"]) => life::start(state, id).await,
        (&Method::POST, [id, "stop"]) => life::stop(state, &call, id).await,
        (&Method::POST, [id, "restart"]) => life::restart(state, &call, id).await,
        (&Method::POST, [id, "kill"]) => life::kill(state, &call, id).await,
        (&Method::POST, [id, "pause"]) => life::pause(state, id, true).await,
        (&Method::POST, [id, "unpause"]) => life::pause(state, id, false).await,
        (&Method::POST, [id, "rename"]) => life::rename(state, &call, id),
        (&Method::POST, [id, "update"]) => life::update(state, call, id).await,
        (&Method::POST, [id, "wait"]) => wait::wait(state, &call, id),
        (&Method::POST, [id, "attach"]) => attach::attach(state, call, id).await,
        (&Method::POST, [id, "resize"]) => attach::resize(state, &call, id).await,
        (&Method::POST, [id, "exec"]) => crate::exec::create(state, call, id).await,
        (&Method::DELETE, [id]) => life::remove(state, &call, id).await,
        (_, [_, "checkpoints", ..]) => Err(pintle_docker::DockerError::unsupported("a checkpoint")),
        _ => Err(not_found()),
    }
}
