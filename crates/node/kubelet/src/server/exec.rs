//! Runs commands in containers and attaches to them, joining the client's streams with the container's.

use super::paths::Place;
use super::query::Query;
use super::{Body, Refusal, State, respond};
use crate::observed::Observed;
use crate::streams::{RemoteStreams, StreamError, Wants};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pintle_cri::{AttachRequest, ContainerState, CriError, ExecRequest, ExitOutcome, Runtime};
use pintle_streaming::ClientStreams;
use serde_json::{Value, json};
use std::sync::Arc;

/// Longer command lines are refused.
const MAX_COMMAND_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Exec,
    Attach,
}

pub async fn answer(state: &State, verb: Verb, place: &Place, request: Request<Incoming>) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let tty = query.is_set("tty");
    let wants = Wants {
        stdin: query.is_set("input") || query.is_set("stdin"),
        stdout: query.is_set("output") || query.is_set("stdout"),
        // A terminal has one output.
        stderr: (query.is_set("error") || query.is_set("stderr")) && !tty,
        tty,
    };
    if !(wants.stdin || wants.stdout || wants.stderr) {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return respond::text(StatusCode::BAD_REQUEST, message);
    }
    let id = match container(state, place).await {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let command = query.all("command");
    if verb == Verb::Exec && (command.is_empty() || command.iter().map(String::len).sum::<usize>() > MAX_COMMAND_BYTES)
    {
        return respond::text(StatusCode::BAD_REQUEST, "you must specify a command of reasonable length");
    }
    let (response, streams) = match state.streaming.exec(request, wants) {
        Ok(upgrade) => upgrade,
        Err(StreamError(message)) => return respond::text(StatusCode::BAD_REQUEST, message),
    };
    let runtime = Arc::clone(&state.host.runtime);
    state.spawn(async move {
        match streams.await {
            Ok(streams) => serve(runtime, verb, id, command, wants, streams).await,
            Err(error) => tracing::debug!(%error, "a client did not go through with its upgrade"),
        }
    });
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

/// The running container that a request means, by id.
async fn container(state: &State, place: &Place) -> Result<String, Refusal> {
    let pod = state.pod(&place.namespace, &place.pod, &place.uid)?;
    let uid = pintle_types::Kind::uid(pod.as_ref());
    let observed = Observed::of(state.host.runtime.as_ref(), uid).await;
    let observed = observed.map_err(|e| respond::refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    match observed.container(&place.container) {
        Some(status) if status.state == ContainerState::Running => Ok(status.id.clone()),
        _ => {
            let message = format!("container not found ({:?})", place.container);
            Err(respond::refuse(StatusCode::NOT_FOUND, message))
        }
    }
}

async fn serve(
    runtime: Arc<dyn Runtime>,
    verb: Verb,
    container_id: String,
    command: Vec<String>,
    wants: Wants,
    streams: RemoteStreams,
) {
    let Wants { stdin, stdout, stderr, tty } = wants;
    let RemoteStreams { stdin: from, stdout: to, stderr: errors, resize, outcome } = streams;
    let client = ClientStreams { stdin: from, stdout: to, stderr: errors, resize };
    let result = match verb {
        Verb::Exec => {
            let request = ExecRequest { container_id, command, tty, size: None, stdin, stdout, stderr };
            pintle_streaming::exec(runtime.as_ref(), request, client).await
        }
        Verb::Attach => {
            let session = runtime.attach(AttachRequest { container_id, stdin, tty, stdout, stderr }).await;
            pintle_streaming::join(session, tty, client).await
        }
    };
    // A client that has gone does not want the outcome.
    let _ = outcome.send(in_words(verb, result));
}

/// The `metav1.Status` that clients take the exit code of a command from. How a container ended that a client was
/// attached to is in the pod's status; kubectl takes a code here for a failed attachment.
fn in_words(verb: Verb, result: Result<ExitOutcome, CriError>) -> Value {
    let doing = match verb {
        Verb::Exec => "executing command in container",
        Verb::Attach => "attaching to container",
    };
    let message = match result {
        Ok(ExitOutcome::Code(code)) if code != 0 && verb == Verb::Exec => {
            return json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            });
        }
        Ok(_) => return json!({"metadata": {}, "status": "Success"}),
        Err(error) => format!("error {doing}: {error}"),
    };
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_a_cause() {
        let status = in_words(Verb::Exec, Ok(ExitOutcome::Code(3)));
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(in_words(Verb::Exec, Ok(ExitOutcome::Code(0)))["status"], "Success");
        assert_eq!(in_words(Verb::Exec, Err(CriError::Internal("x".into())))["code"], 500);
    }

    #[test]
    fn an_attachment_succeeds_however_the_container_ends() {
        assert_eq!(in_words(Verb::Attach, Ok(ExitOutcome::Code(4))), json!({"metadata": {}, "status": "Success"}));
        let failed = in_words(Verb::Attach, Err(CriError::Internal("x".into())));
        let message = failed["message"].as_str().unwrap();
        assert!(message.starts_with("Internal error occurred: error attaching to container: "), "{message}");
    }
}
