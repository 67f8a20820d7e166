//! Containers of pods, which the kubelet keeps: the docker command sees them, looks
//! into them and runs further processes in them, no more.

use crate::State;
use crate::answer::{Result, bytes, value};
use crate::call::Call;
use crate::images::familiar;
use http::{Method, StatusCode};
use pintle_cri::{Container, ContainerFilter, ContainerState, ContainerStatus, PodSandboxFilter, RuntimeService};
use pintle_docker::DockerError;
use pintle_docker::containers::{ago, rfc3339};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// The most of a log that one answer holds.
const MAX_LOG_BYTES: u64 = 64 << 20;

/// One of them, with the name that it has here.
pub(crate) struct PodContainer {
    container: Container,
    name: String,
}

/// The names of the sandboxes' pods, by the sandboxes' ids: containers are named after them.
async fn names(state: &State) -> Result<HashMap<String, String>> {
    let sandboxes = state.daemon.engine.list_pod_sandbox(PodSandboxFilter::default()).await?;
    let name = |m: &pintle_cri::PodSandboxMetadata| format!("{}_{}_{}", m.name, m.namespace, m.uid);
    Ok(sandboxes.into_iter().map(|s| (s.id, name(&s.metadata))).collect())
}

fn container_name(container: &Container, sandboxes: &HashMap<String, String>) -> String {
    let sandbox = sandboxes.get(&container.sandbox_id).map(String::as_str).unwrap_or_default();
    format!("k8s_{}_{sandbox}_{}", container.metadata.name, container.metadata.attempt)
}

/// Finds one by its id, the beginning of its id, or its name. Docker's own containers come first.
pub(crate) async fn find(state: &State, wanted: &str) -> Result<Option<PodContainer>> {
    if wanted.len() < 2 || matches!(wanted, "json" | "create" | "prune") || state.daemon.container(wanted).is_ok() {
        return Ok(None);
    }
    let all = state.daemon.engine.list_containers(ContainerFilter::default()).await?;
    if all.is_empty() {
        return Ok(None);
    }
    let sandboxes = names(state).await?;
    let wanted = wanted.trim_start_matches('/');
    let named = |c: &Container| container_name(c, &sandboxes);
    let mut matching: Vec<&Container> = all.iter().filter(|c| c.id == wanted || named(c) == wanted).collect();
    if matching.is_empty() {
        matching = all.iter().filter(|c| c.id.starts_with(wanted)).collect();
    }
    match matching.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(PodContainer { container: (*one).clone(), name: named(one) })),
        _ => Err(DockerError::invalid(format!("multiple IDs found with provided prefix: {wanted}"))),
    }
}

pub(crate) async fn route(state: &Arc<State>, call: Call, pod: &PodContainer, parts: &[&str]) -> Result {
    match (&call.method, parts) {
        (&Method::GET, ["json"]) => inspect(state, pod).await,
        (&Method::GET, ["logs"]) => logs(state, &call, pod).await,
        (&Method::POST, ["exec"]) => crate::exec::create(state, call, &pod.container.id).await,
        (&Method::GET, ["top"]) => super::look::top(state, &call, &pod.container.id).await,
        (&Method::GET, ["stats"]) => {
            let running = pod.container.state == ContainerState::Running;
            super::stats::measured(state, &call, pod.container.id.clone(), pod.name.clone(), running).await
        }
        (_, [verb @ ("attach" | "wait" | "archive" | "changes" | "export")]) => {
            Err(DockerError::unsupported(&format!("{verb} of a pod's container (use kubectl)")))
        }
        _ => Err(DockerError::conflict(format!(
            "container {} belongs to a pod, and its kubelet would undo this: use kubectl",
            pod.name
        ))),
    }
}

fn state_text(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
        ContainerState::Unknown => "dead",
    }
}

fn status_text(status: &ContainerStatus, now: i64) -> String {
    match status.state {
        ContainerState::Running => format!("Up {}", ago(status.started_at, now)),
        ContainerState::Exited => format!("Exited ({}) {} ago", status.exit_code, ago(status.finished_at, now)),
        ContainerState::Created => "Created".into(),
        ContainerState::Unknown => "Dead".into(),
    }
}

/// All of them, those that run or all.
pub(crate) async fn summaries(state: &State, all: bool) -> Result<Vec<Value>> {
    let wanted = if all { None } else { Some(ContainerState::Running) };
    let filter = ContainerFilter { state: wanted, ..ContainerFilter::default() };
    let containers = state.daemon.engine.list_containers(filter).await?;
    if containers.is_empty() {
        return Ok(Vec::new());
    }
    let (sandboxes, now) = (names(state).await?, state.daemon.now());
    let mut shown = Vec::with_capacity(containers.len());
    for container in &containers {
        // It may have been removed just now.
        let Ok(status) = state.daemon.engine.container_status(&container.id).await else { continue };
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
    Ok(shown)
}

async fn inspect(state: &State, pod: &PodContainer) -> Result {
    let status = state.daemon.engine.container_status(&pod.container.id).await?;
    value(&json!({
        "Id": pod.container.id,
        "Created": rfc3339(status.created_at),
        "Name": format!("/{}", pod.name),
        "Image": status.image_id,
        "State": {
            "Status": state_text(status.state),
            "Running": status.state == ContainerState::Running,
            "OOMKilled": status.reason == "OOMKilled",
            "Pid": status.pid,
            "ExitCode": status.exit_code,
            "Error": if status.exit_code == 0 { "" } else { status.message.as_str() },
            "StartedAt": rfc3339(status.started_at),
            "FinishedAt": rfc3339(status.finished_at),
        },
        "LogPath": status.log_path,
        "RestartCount": status.metadata.attempt,
        "Config": { "Image": familiar(&status.image), "Labels": status.labels, "Tty": false },
    }))
}

async fn logs(state: &State, call: &Call, pod: &PodContainer) -> Result {
    let query = &call.query;
    if query.flag("follow") {
        return Err(DockerError::unsupported("following the log of a pod's container (use kubectl)"));
    }
    let path = state.daemon.engine.container_status(&pod.container.id).await?.log_path;
    let failed = |e: std::io::Error| DockerError::io(format_args!("read {path}"), e);
    if tokio::fs::metadata(&path).await.map_err(failed)?.len() > MAX_LOG_BYTES {
        return Err(DockerError::unsupported(&format!("showing a log of more than {MAX_LOG_BYTES} bytes")));
    }
    let text = tokio::fs::read(&path).await.map_err(failed)?;
    let tail = query.get("tail").parse().ok();
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
        out.extend_from_slice(&crate::hijack::frame(*stream, &line));
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
}
