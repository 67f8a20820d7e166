//! Runs commands in containers and attaches to them, joining the client's streams with the container's.

use super::paths::Place;
use super::query::Query;
use super::{Body, Refusal, State, respond};
use crate::observed::Observed;
use crate::streams::{RemoteStreams, StreamError, Wants};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pintle_cri::{AttachRequest, ContainerState, CriError, ExecRequest, ExecSession, ExitOutcome, Runtime};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

/// How long the start of a program on a terminal waits for the terminal's size.
const FIRST_SIZE_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(200);

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
    let RemoteStreams { stdin: from, stdout: to, stderr: errors, mut resize, outcome } = streams;
    let session = match verb {
        Verb::Exec => {
            let size = if tty { first_size(&mut resize).await } else { None };
            let started = runtime.exec(ExecRequest { container_id, command, tty, size, stdin, stdout, stderr }).await;
            if let (Ok(session), Some(size)) = (&started, size) {
                // For a runtime that could not set it before. A process that has ended takes no sizes.
                let _ = session.resize.send(size).await;
            }
            started
        }
        Verb::Attach => runtime.attach(AttachRequest { container_id, stdin, tty, stdout, stderr }).await,
    };
    let result = match session {
        Ok(session) => join(session, tty, from, to, errors, resize).await,
        Err(error) => {
            // Clients over SPDY read these to their ends before they look at the outcome.
            for mut output in [to, errors].into_iter().flatten() {
                // A client that has gone reads nothing.
                let _ = output.shutdown().await;
            }
            Err(error)
        }
    };
    // A client that has gone does not want the outcome.
    let _ = outcome.send(in_words(verb, result));
}

/// The size that a client tells right after it opened its streams. A program that asks for its size at once, as many
/// do, would be faster than the message otherwise.
async fn first_size(
    sizes: &mut tokio::sync::mpsc::Receiver<pintle_cri::TerminalSize>,
) -> Option<pintle_cri::TerminalSize> {
    tokio::time::timeout(FIRST_SIZE_TIMEOUT, sizes.recv()).await.ok().flatten()
}

/// Copies until the process has ended and all of its output is sent.
async fn join(
    session: ExecSession,
    tty: bool,
    client_in: Option<pintle_cri::ByteReader>,
    client_out: Option<pintle_cri::ByteWriter>,
    client_err: Option<pintle_cri::ByteWriter>,
    mut sizes: tokio::sync::mpsc::Receiver<pintle_cri::TerminalSize>,
) -> Result<ExitOutcome, CriError> {
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let input = async {
        if let (Some(mut from), Some(mut to)) = (client_in, stdin) {
            // Either side may close first; the process' end is what counts.
            let _copied = tokio::io::copy(&mut from, &mut to).await;
            let _closed = to.shutdown().await;
        }
        // The end of the input is not the end of the process.
        std::future::pending::<ExitOutcome>().await
    };
    let terminal = async {
        while let Some(size) = sizes.recv().await {
            // A process that has ended takes no sizes; its outcome is about to come.
            if resize.send(size).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        // With a terminal the sizes end when the client has gone; without one they may never have begun.
        if !tty {
            std::future::pending::<()>().await;
        }
    };
    let output = async { tokio::join!(pipe(stdout, client_out), pipe(stderr, client_err), exit).2 };
    tokio::select! {
        result = output => result,
        outcome = input => Ok(outcome),
        () = terminal => Ok(ExitOutcome::Detached),
    }
}

async fn pipe(from: Option<pintle_cri::ByteReader>, to: Option<pintle_cri::ByteWriter>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        // A client that went away stops the copying; the process goes on.
        let _copied = tokio::io::copy(&mut from, &mut to).await;
        let _closed = to.shutdown().await;
    }
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
