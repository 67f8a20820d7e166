//! Waits for the ends of containers. The answer's head goes at once: then the client knows that the wait has begun.

use crate::State;
use crate::answer::{Result, stream};
use crate::call::Call;
use bytes::Bytes;
use pintle_docker::DockerError;
use pintle_docker::containers::Condition;
use serde_json::json;
use std::sync::Arc;

pub(crate) fn wait(state: &Arc<State>, call: &Call, id: &str) -> Result {
    let condition = match call.query.get("condition") {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(DockerError::invalid(format!("invalid condition: {other:?}"))),
    };
    let container = state.daemon.container(id)?;
    let waiting = state.daemon.wait_for(&container, condition);
    let answered = futures::stream::once(async move {
        let waited = waiting.done().await;
        let mut body = json!({ "StatusCode": waited.code });
        if !waited.error.is_empty() {
            body["Error"] = json!({ "Message": waited.error });
        }
        Ok(Bytes::from(format!("{body}\n")))
    });
    Ok(stream("application/json", answered))
}
