//! Streams the output of containers.

use crate::State;
use crate::answer::{Answer, Result, stream};
use crate::call::Call;
use crate::hijack::{content_type, frame, receiver_stream};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use pintle_docker::DockerError;
use pintle_docker::containers::AttachWanted;
use pintle_docker::logs::{LogLine, LogOptions};
use std::sync::Arc;
use tokio::sync::mpsc;

pub(crate) fn logs(state: &Arc<State>, call: &Call, id: &str) -> Result {
    let container = state.daemon.container(id)?;
    let options = options(state, call)?;
    let tty = container.look(|r| r.config.tty);
    let details = match call.query.flag("details") {
        true => Some(state.daemon.log_details(&container.id)?),
        false => None,
    };
    Ok(answer(call, tty, details, state.daemon.container_logs(&container.id, options)?))
}

/// What a client asks for.
pub(crate) fn options(state: &State, call: &Call) -> Result<LogOptions> {
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(DockerError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let now = state.daemon.now();
    let time = |key: &str| match query.get(key) {
        "" | "0" => Ok(None),
        text => crate::times::parse(text, now).map(Some),
    };
    Ok(LogOptions {
        stdout,
        stderr,
        follow: query.flag("follow"),
        since: time("since")?,
        until: time("until")?,
        // What is no number is all, as with Docker.
        tail: query.get("tail").parse().ok(),
    })
}

/// Lines as they come, with `details` before each.
pub(crate) fn answer(call: &Call, tty: bool, details: Option<String>, lines: mpsc::Receiver<LogLine>) -> Answer {
    let timestamps = call.query.flag("timestamps");
    let pieces = receiver_stream(lines).map(move |line| {
        let text = match &details {
            Some(details) => format!("{details} {}", line.text),
            None => line.text,
        };
        let text = if timestamps { format!("{} {text}", nine_digits(&line.time)) } else { text };
        Ok(if tty { Bytes::from(text) } else { frame(line.stream, text.as_bytes()) })
    });
    stream(content_type(tty, call.version), pieces)
}

/// What a container has said until now, or until a time in nanoseconds since the epoch, as an attached client gets it.
pub(crate) fn written(
    state: &Arc<State>,
    id: &str,
    tty: bool,
    wanted: AttachWanted,
    until: Option<i64>,
) -> Result<BoxStream<'static, Bytes>> {
    let options = LogOptions { stdout: wanted.stdout, stderr: wanted.stderr, until, ..LogOptions::default() };
    let lines = receiver_stream(state.daemon.container_logs(id, options)?);
    Ok(lines.map(move |l| if tty { Bytes::from(l.text) } else { frame(l.stream, l.text.as_bytes()) }).boxed())
}

/// Columns stay in line when every fraction has nine digits.
fn nine_digits(time: &str) -> String {
    let Some((whole, fraction)) = time.trim_end_matches('Z').split_once('.') else { return time.to_owned() };
    format!("{whole}.{fraction:0<9}Z")
}
