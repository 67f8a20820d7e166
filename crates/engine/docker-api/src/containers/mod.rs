//! The Engine's calls on containers, a file for each group of them.

mod attach;
mod create;
mod life;
mod wait;

use crate::State;
use crate::answer::Result;
use crate::call::Call;
use crate::route::not_found;
use http::Method;
use std::sync::Arc;

pub(crate) use attach::size;

pub(crate) async fn route(state: &Arc<State>, call: Call, parts: &[&str]) -> Result {
    match (&call.method, parts) {
        (&Method::POST, ["create"]) => create::create(state, call).await,
        (&Method::POST, [id, "start"]) => life::start(state, id).await,
        (&Method::POST, [id, "stop"]) => life::stop(state, &call, id).await,
        (&Method::POST, [id, "restart"]) => life::restart(state, &call, id).await,
        (&Method::POST, [id, "kill"]) => life::kill(state, &call, id).await,
        (&Method::DELETE, [id]) => life::remove(state, &call, id).await,
        (&Method::POST, [id, "wait"]) => wait::wait(state, &call, id),
        (&Method::POST, [id, "attach"]) => attach::attach(state, call, id).await,
        (&Method::POST, [id, "resize"]) => attach::resize(state, &call, id).await,
        (&Method::POST, [id, "exec"]) => crate::exec::create(state, call, id).await,
        _ => Err(not_found()),
    }
}
