//! The Engine's container calls, over what CRI knows.

use crate::State;
use crate::answer::{Answer, Failure, bytes, value};
use crate::images::familiar;
use crate::route::Query;
use http::StatusCode;
use pintle_clock::Timestamp;
use pintle_cri::{Container, ContainerFilter, ContainerState, ContainerStatus, PodSandboxFilter};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The most of a log that one answer holds.
const MAX_LOG_BYTES: u64 = 64 << 20;

fn state_text(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
        ContainerState::Unknown => "dead",
    }
}

/// A length of time in words, as docker says it.
fn human(seconds: i64) -> String {
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{} minutes", seconds / 60),
        3600..7200 => "About an hour".into(),
        7200..172_800 => format!("{} hours", seconds / 3600),
        172_800..1_209_600 => format!("{} days", seconds / 86400),
        _ => format!("{} weeks", seconds / 604_800),
    }
}

fn status_text(status: &ContainerStatus, now: i64) -> String {
    let since = |nanos: i64| human((now - nanos) / 1_000_000_000);
    match status.state {
        ContainerState::Running => format!("Up {}", since(status.started_at)),
        ContainerState::Exited => format!("Exited ({}) {} ago", status.exit_code, since(status.finished_at)),
        ContainerState::Created => "Created".into(),
        ContainerState::Unknown => "Dead".into(),
    }
}

/// The names of the sandboxes' pods, by the sandboxes' ids: containers are named after them.
async fn names(state: &State) -> Result<HashMap<String, String>, Failure> {
    let sandboxes = state.runtime.list_pod_sandbox(PodSandboxFilter::default()).await?;
    let name = |m: &pintle_cri::PodSandboxMetadata| format!("{}_{}_{}", m.name, m.namespace, m.uid);
    Ok(sandboxes.into_iter().map(|s| (s.id, name(&s.metadata))).collect())
}

fn container_name(container: &Container, sandboxes: &HashMap<String, String>) -> String {
    let sandbox = sandboxes.get(&container.sandbox_id).map(String::as_str).unwrap_or_default();
    format!("k8s_{}_{sandbox}_{}", container.metadata.name, container.metadata.attempt)
}

pub(crate) async fn list(state: &State, query: &Query) -> Result<Answer, Failure> {
    if !matches!(query.get("filters"), "" | "{}") {
        return Err(Failure::unsupported("filtering containers"));
    }
    let wanted = if query.flag("all") { None } else { Some(ContainerState::Running) };
    let filter = ContainerFilter { state: wanted, ..ContainerFilter::default() };
    let mut containers = state.runtime.list_containers(filter).await?;
    containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    let (sandboxes, now) = (names(state).await?, now_nanos());
    let mut shown: Vec<Value> = Vec::with_capacity(containers.len());
    for container in &containers {
        // It may have been removed just now.
        let Ok(status) = state.runtime.container_status(&container.id).await else { continue };
        shown.push(json!({
            "Id": container.id,
            "Names": [format!("/{}", container_name(container, &sandboxes))],
            "Image": familiar(&container.image),
            "ImageID": status.image_id,
            "Command": "",
            "Created": container.created_at / 1_000_000_000,
            "Ports": [],
            "Labels": container.labels,
            "State": state_text(status.state),
            "Status": status_text(&status, now),
            "HostConfig": {},
            "NetworkSettings": { "Networks": {} },
            "Mounts": [],
        }));
    }
    Ok(value(&json!(shown)))
}

fn now_nanos() -> i64 {
    i64::try_from(pintle_clock::system().unix_nanos()).unwrap_or(i64::MAX)
}

/// Finds a container by its id, the beginning of its id, or its name.
async fn find(state: &State, wanted: &str) -> Result<(Container, String), Failure> {
    let sandboxes = names(state).await?;
    let all = state.runtime.list_containers(ContainerFilter::default()).await?;
    let named = |c: &Container| container_name(c, &sandboxes);
    let mut matching: Vec<&Container> = all.iter().filter(|c| c.id == wanted || named(c) == wanted).collect();
    if matching.is_empty() && wanted.len() >= 2 {
        matching = all.iter().filter(|c| c.id.starts_with(wanted)).collect();
    }
    match matching.as_slice() {
        [one] => Ok(((*one).clone(), named(one))),
        [] => Err(Failure::new(StatusCode::NOT_FOUND, format!("No such container: {wanted}"))),
        _ => Err(Failure::bad_request(format!("Multiple IDs found with provided prefix: {wanted}"))),
    }
}

fn time_text(nanos: i64) -> String {
    let known = if nanos == 0 { None } else { Timestamp::from_nanosecond(i128::from(nanos)).ok() };
    known.map_or_else(|| "0001-01-01T00:00:00Z".into(), |time| time.to_string())
}

pub(crate) async fn inspect(state: &State, id: &str) -> Result<Answer, Failure> {
    let (container, name) = find(state, id).await?;
    let status = state.runtime.container_status(&container.id).await?;
    Ok(value(&json!({
        "Id": container.id,
        "Created": time_text(status.created_at),
        "Name": format!("/{name}"),
        "Image": status.image_id,
        "State": {
            "Status": state_text(status.state),
            "Running": status.state == ContainerState::Running,
            "OOMKilled": status.reason == "OOMKilled",
            "Pid": status.pid,
            "ExitCode": status.exit_code,
            "Error": if status.exit_code == 0 { "" } else { status.message.as_str() },
            "StartedAt": time_text(status.started_at),
            "FinishedAt": time_text(status.finished_at),
        },
        "LogPath": status.log_path,
        "RestartCount": status.metadata.attempt,
        "Config": { "Image": familiar(&status.image), "Labels": status.labels, "Tty": false },
    })))
}

pub(crate) async fn logs(state: &State, id: &str, query: &Query) -> Result<Answer, Failure> {
    if query.flag("follow") {
        return Err(Failure::unsupported("following logs"));
    }
    let (container, _) = find(state, id).await?;
    let path = state.runtime.container_status(&container.id).await?.log_path;
    let failed = |e: std::io::Error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("read {path}: {e}"));
    if tokio::fs::metadata(&path).await.map_err(failed)?.len() > MAX_LOG_BYTES {
        return Err(Failure::unsupported(&format!("showing a log of more than {MAX_LOG_BYTES} bytes")));
    }
    let text = tokio::fs::read(&path).await.map_err(failed)?;
    let tail = match query.get("tail") {
        "" | "all" => None,
        number => Some(number.parse::<usize>().map_err(|_| Failure::bad_request(format!("invalid tail {number:?}")))?),
    };
    let body = frames(&text, tail, query.flag("timestamps"), query.flag("stdout"), query.flag("stderr"));
    Ok(bytes(StatusCode::OK, "application/vnd.docker.multiplexed-stream", body))
}

/// Lines of a CRI log file (`TIME STREAM TAG TEXT`) as the Engine's multiplexed frames.
fn frames(log: &[u8], tail: Option<usize>, timestamps: bool, stdout: bool, stderr: bool) -> Vec<u8> {
    let lines = log.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let stream = if stream == b"stderr" { 2u8 } else { 1 };
        // A partial line ends without the line break that the file has.
        let text = if tag.starts_with(b"P") { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        (if stream == 1 { stdout } else { stderr }).then_some((stream, time, text))
    });
    let lines: Vec<_> = lines.collect();
    let skipped = tail.map_or(0, |n| lines.len().saturating_sub(n));
    let mut out = Vec::with_capacity(log.len());
    for (stream, time, text) in &lines[skipped..] {
        let mut line = Vec::with_capacity(text.len() + 40);
        if timestamps {
            line.extend_from_slice(time);
            line.push(b' ');
        }
        line.extend_from_slice(text);
        out.extend_from_slice(&[*stream, 0, 0, 0]);
        out.extend_from_slice(&(line.len() as u32).to_be_bytes());
        out.extend_from_slice(&line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_become_frames() {
        let log = b"2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n2026-01-01T00:00:02Z stdout P thr\n";
        assert_eq!(frames(log, None, false, true, false), b"\x01\0\0\0\0\0\0\x04one\n\x01\0\0\0\0\0\0\x03thr");
        assert_eq!(frames(log, Some(1), false, true, true), b"\x01\0\0\0\0\0\0\x03thr");
        assert_eq!(frames(&log[..10], None, false, true, true), b"");
        assert!(frames(log, None, true, false, true).ends_with(b"2026-01-01T00:00:01Z two\n"));
    }

    #[test]
    fn times_are_told_in_words() {
        for (seconds, text) in
            [(0, "Less than a second"), (5, "5 seconds"), (61, "About a minute"), (200_000, "2 days")]
        {
            assert_eq!(human(seconds), text);
        }
    }
}
