//! The Engine's calls on further processes in containers.

use crate::State;
use crate::answer::{Result, bytes, json_with, value};
use crate::call::Call;
use crate::hijack::{self, Streams};
use crate::route::not_found;
use crate::{containers, detach};
use http::{Method, StatusCode};
use pintle_docker::exec::{ExecConfig, ExecPhase, ExecStreams};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn route(state: &Arc<State>, call: Call, parts: &[&str]) -> Result {
    match (&call.method, parts) {
        (&Method::POST, [id, "start"]) => start(state, call, id).await,
        (&Method::POST, [id, "resize"]) => {
            let (columns, rows) = containers::size(&call)?;
            state.daemon.resize_exec(id, columns, rows).await?;
            Ok(bytes(StatusCode::OK, "", ""))
        }
        (&Method::GET, [id, "json"]) => inspect(state, id),
        _ => Err(not_found()),
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    user: String,
    privileged: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
    attach_stdin: bool,
    attach_stderr: bool,
    attach_stdout: bool,
    detach_keys: String,
    env: Vec<String>,
    working_dir: String,
    cmd: Vec<String>,
}

/// `POST /containers/ID/exec`
pub(crate) async fn create(state: &Arc<State>, mut call: Call, container: &str) -> Result {
    let body: CreateBody = call.json().await?;
    // Refused now rather than when it starts.
    detach::parse(&body.detach_keys)?;
    let config = ExecConfig {
        command: body.cmd,
        env: body.env,
        user: body.user,
        working_dir: body.working_dir,
        privileged: body.privileged,
        tty: body.tty,
        stdin: body.attach_stdin,
        stdout: body.attach_stdout,
        stderr: body.attach_stderr,
        detach_keys: body.detach_keys,
        size: body.console_size.map(|[rows, columns]| (columns, rows)),
    };
    let id = state.daemon.create_exec(container, config)?;
    json_with(StatusCode::CREATED, &json!({ "Id": id }))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StartBody {
    detach: bool,
    console_size: Option<[u16; 2]>,
}

async fn start(state: &Arc<State>, mut call: Call, id: &str) -> Result {
    let body: StartBody = call.json().await?;
    let exec = state.daemon.exec(id)?;
    let size = body.console_size.map(|[rows, columns]| (columns, rows));
    if body.detach {
        state.daemon.start_exec(id, size).await?;
        return Ok(bytes(StatusCode::OK, "", ""));
    }
    let tty = exec.config.tty;
    let keys = detach::parse(&exec.config.detach_keys)?;
    let base = Streams { tty, detach: keys, ..Streams::default() };
    if !call.wants_upgrade() {
        let started = state.daemon.start_exec(id, size).await?;
        return Ok(hijack::as_body(of_exec(started, base), call.version));
    }
    state.daemon.check_exec(id)?;
    // Nothing is started before the answer's head is on its way: clients that read the head into a buffer, such as
    // Python's, lose what comes with it.
    let daemon = Arc::clone(&state.daemon);
    hijack::take_over(&mut call, tty, move |connection| async move {
        tokio::time::sleep(hijack::HEAD_PAUSE).await;
        let streams = match daemon.start_exec(&exec.id, size).await {
            Ok(started) => of_exec(started, base),
            // Docker tells on the stream what goes wrong once it has begun.
            Err(error) => {
                let text = format!("{}\r\n", error.message);
                let before = if tty { text.into() } else { hijack::frame(1, text.as_bytes()) };
                Streams { before, ..base }
            }
        };
        hijack::serve(connection, streams).await;
    })
}

fn of_exec(started: ExecStreams, base: Streams) -> Streams {
    let ExecStreams { stdin, stdout, stderr, ended } = started;
    Streams { stdin, stdout, stderr, ended: Some(ended), ..base }
}

fn inspect(state: &Arc<State>, id: &str) -> Result {
    let exec = state.daemon.exec(id)?;
    let config = &exec.config;
    let (running, code) = match exec.phase() {
        ExecPhase::Created => (false, None),
        ExecPhase::Running => (true, None),
        ExecPhase::Ended(code) => (false, Some(code)),
    };
    let (entrypoint, arguments) = config.command.split_first().map_or(("", &[][..]), |(e, a)| (e.as_str(), a));
    value(&json!({
        "ID": exec.id,
        "Running": running,
        "ExitCode": code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": config.privileged,
            "user": config.user,
        },
        "OpenStdin": config.stdin,
        "OpenStderr": config.stderr,
        "OpenStdout": config.stdout,
        "CanRemove": code.is_some(),
        "ContainerID": exec.container_id,
        "DetachKeys": "",
        "Pid": exec.pid(),
    }))
}
