//! Joins clients to the stdio of containers.

use crate::State;
use crate::answer::{Result, bytes};
use crate::call::Call;
use crate::detach;
use crate::hijack::{self, Ending, Streams};
use http::StatusCode;
use pintle_docker::DockerError;
use pintle_docker::containers::{AttachWanted, Attached};
use std::sync::Arc;

pub(crate) async fn attach(state: &Arc<State>, mut call: Call, id: &str) -> Result {
    let container = state.daemon.container(id)?;
    let keys = detach::parse(call.query.get("detachKeys"))?;
    let (tty, stdin_open) = container.look(|r| (r.config.tty, r.config.open_stdin));
    let (query, streamed) = (&call.query, call.query.flag("stream"));
    let wanted = AttachWanted {
        stdin: query.flag("stdin") && stdin_open && streamed,
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let attached = match streamed {
        true => Some(state.daemon.attach_container(&container, wanted).await?),
        false => None,
    };
    let past = match query.flag("logs") {
        true => {
            let until = attached.as_ref().and_then(|attached| attached.since);
            Some(super::logs::written(state, &container.id, tty, wanted, until)?)
        }
        false => None,
    };
    let base = Streams { tty, detach: keys, past, ..Streams::default() };
    let begin = move |attached: Option<Attached>, base: Streams| async move {
        let Some(attached) = attached else { return Some(base) };
        let session = attached.session.await?.ok()?;
        Some(Streams { stdin: session.stdin, stdout: session.stdout, stderr: session.stderr, ..base })
    };
    if !call.wants_upgrade() {
        let streams = begin(attached, base).await.unwrap_or_default();
        return Ok(hijack::as_body(streams, call.version));
    }
    let daemon = Arc::clone(&state.daemon);
    hijack::take_over(&mut call, tty, move |connection| async move {
        let Some(streams) = begin(attached, base).await else { return };
        if hijack::serve(connection, streams).await == Ending::Detached {
            daemon.note_detached(&container);
        }
    })
}

/// Columns and rows of a request to resize.
pub(crate) fn size(call: &Call) -> Result<(u16, u16)> {
    let number = |key| {
        let text = call.query.get(key);
        text.parse::<u16>().map_err(|_| DockerError::invalid(format!("invalid resize {key}: {text:?}")))
    };
    Ok((number("w")?, number("h")?))
}

pub(crate) async fn resize(state: &Arc<State>, call: &Call, id: &str) -> Result {
    let (columns, rows) = size(call)?;
    state.daemon.resize_container(id, columns, rows).await?;
    Ok(bytes(StatusCode::OK, "", ""))
}
