//! Containers of pods, which the kubelet keeps: the docker command sees them, looks into them, joins their streams,
//! copies files and runs further processes in them, no more.

use crate::State;
use crate::answer::{Result, stream, value};
use crate::call::Call;
use crate::hijack::{self, Streams};
use crate::images::familiar;
use bytes::Bytes;
use http::Method;
use pintle_cri::{
    AttachRequest, Container, ContainerFilter, ContainerState, ContainerStatus, PodSandboxFilter, RuntimeService,
};
use pintle_docker::DockerError;
use pintle_docker::containers::{Record, Status, ago, rfc3339};
use pintle_docker::logs::{LogForm, LogOptions, read_log};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// One of them, with the name that it has here.
pub(crate) struct PodContainer {
    container: Container,
    name: String,
}

impl PodContainer {
    fn is_running(&self) -> bool {
        self.container.state == ContainerState::Running
    }
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
        (&Method::GET, ["logs"]) => {
            let path = state.daemon.engine.container_status(&pod.container.id).await?.log_path;
            logs(state, &call, pod, &path)
        }
        (&Method::POST, ["attach"]) => attach(state, call, pod).await,
        (&Method::POST, ["wait"]) => wait(state, &call, pod),
        (_, ["archive"]) => copy(state, call, pod).await,
        (&Method::POST, ["exec"]) => crate::exec::create(state, call, &pod.container.id).await,
        (&Method::GET, ["top"]) => super::look::top(state, &call, &pod.container.id).await,
        (&Method::GET, ["stats"]) => {
            super::stats::measured(state, &call, pod.container.id.clone(), pod.name.clone(), pod.is_running()).await
        }
        (_, [verb @ ("changes" | "export")]) => {
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

fn logs(state: &State, call: &Call, pod: &PodContainer, path: &str) -> Result {
    let options = super::logs::options(state, call)?;
    let follow = options.follow && pod.is_running();
    let (engine, id) = (Arc::clone(&state.daemon.engine), pod.container.id.clone());
    // One that is gone has ended.
    let ended = async move { drop(engine.wait_container(&id).await) };
    let lines = read_log(path.into(), LogForm::Cri, LogOptions { follow, ..options }, ended)?;
    Ok(super::logs::answer(call, false, None, lines))
}

/// Joins the streams of one that runs.
async fn attach(state: &State, mut call: Call, pod: &PodContainer) -> Result {
    if !pod.is_running() {
        return Err(DockerError::conflict(format!("container {} is not running", pod.name)));
    }
    let query = &call.query;
    let request = AttachRequest {
        container_id: pod.container.id.clone(),
        stdin: query.flag("stdin"),
        tty: false,
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let session = state.daemon.engine.attach(request).await?;
    let (stdin, stdout, stderr) = (session.stdin, session.stdout, session.stderr);
    let streams = Streams { stdin, stdout, stderr, ..Streams::default() };
    if !call.wants_upgrade() {
        return Ok(hijack::as_body(streams, call.version));
    }
    hijack::take_over(&mut call, false, move |connection| async move {
        hijack::serve(connection, streams).await;
    })
}

/// The end of one, which may be long ago.
fn wait(state: &State, call: &Call, pod: &PodContainer) -> Result {
    if matches!(call.query.get("condition"), "next-exit" | "removed") && !pod.is_running() {
        return Err(DockerError::unsupported("waiting for a pod's container that has ended (use kubectl)"));
    }
    let (engine, id) = (Arc::clone(&state.daemon.engine), pod.container.id.clone());
    let ended = async move {
        let view = engine.wait_container(&id).await.map_err(io::Error::other)?;
        Ok(Bytes::from(format!("{}\n", json!({ "StatusCode": view.exit_code }))))
    };
    Ok(stream("application/json", futures::stream::once(ended)))
}

/// Copies reach the files of those that run.
async fn copy(state: &Arc<State>, call: Call, pod: &PodContainer) -> Result {
    if !pod.is_running() {
        return Err(DockerError::unsupported("copying from a pod's container that does not run"));
    }
    let pid = state.daemon.engine.view(&pod.container.id)?.pid;
    let running = pintle_docker::containers::State { status: Status::Running, pid, ..Default::default() };
    let record = Record { id: pod.container.id.clone(), state: running, ..Record::default() };
    let method = call.method.clone();
    super::copy(state, &method, call, &pod.name, record).await
}
