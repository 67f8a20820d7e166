//! Answers requests for logs.

use super::query::Query;
use super::{Body, State, respond};
use crate::logs::{Options, stream};
use crate::observed::Observed;
use http::{Response, StatusCode};
use jiff::Timestamp;
use pintle_cri::ContainerStatus as RuntimeStatus;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{ContainerStatus, Pod};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Parts that wait for a slow client.
const PARTS: usize = 8;

pub async fn answer(state: &State, namespace: &str, pod: &str, container: &str, query: &str) -> Response<Body> {
    let query = Query::parse(query);
    let options = match options(&query, state.host.clock.now()) {
        Ok(options) => options,
        Err(message) => return respond::text(StatusCode::BAD_REQUEST, message),
    };
    let pod = match state.pod(namespace, pod, "") {
        Ok(pod) => pod,
        Err(refusal) => return *refusal,
    };
    if !has_container(&pod, container) {
        let message = format!("container {container:?} not found in pod {:?}", format!("{}_{namespace}", pod.name()));
        return respond::text(StatusCode::NOT_FOUND, message);
    }
    let observed = match Observed::of(state.host.runtime.as_ref(), pod.uid()).await {
        Ok(observed) => observed,
        Err(error) => return respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let status = match choose(&pod, container, &observed, query.is_set("previous")) {
        Ok(status) => status,
        Err(message) => return respond::text(StatusCode::BAD_REQUEST, message),
    };
    let path = match PathBuf::from(&status.log_path) {
        path if path.is_absolute() => path,
        relative => state.host.log_dir(&pod).join(relative),
    };
    let (sender, receiver) = mpsc::channel(PARTS);
    let (id, runtime) = (status.id.clone(), Arc::clone(&state.host.runtime));
    state.spawn(async move { stream(&path, &id, options, runtime, sender).await });
    respond::stream(receiver)
}

fn options(query: &Query, now: Timestamp) -> Result<Options, String> {
    let since_time = match query.get("sinceTime").filter(|t| !t.is_empty()) {
        Some(text) => Some(text.parse::<Timestamp>().map_err(|_| format!("sinceTime {text:?} is no RFC 3339 time"))?),
        None => None,
    };
    let ago = |seconds| now.saturating_sub(Duration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
    let since = query.number("sinceSeconds")?.map(ago).or(since_time);
    let stderr = match query.get("stream").unwrap_or_default() {
        "" | "All" => None,
        "Stdout" => Some(false),
        "Stderr" => Some(true),
        other => return Err(format!("stream {other:?} is none of All, Stdout, Stderr")),
    };
    Ok(Options {
        follow: query.is_set("follow"),
        timestamps: query.is_set("timestamps"),
        tail_lines: query.number("tailLines")?,
        since,
        limit_bytes: query.number("limitBytes")?,
        stderr,
    })
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let ephemeral = crate::reference::ephemeral_containers(pod);
    crate::reference::lasting_containers(pod).any(|(_, c)| c.name == name)
        || ephemeral.iter().any(|(c, _)| c.name == name)
}

/// The container whose log is meant: the newest that ran, or the one before.
fn choose<'a>(pod: &Pod, name: &str, observed: &'a Observed, previous: bool) -> Result<&'a RuntimeStatus, String> {
    let newest = observed.container(name);
    let reason = waiting_reason(pod, name);
    if previous {
        // While a container waits to be started again, the one that ended last is the previous one.
        let candidate = if reason.is_some() { newest } else { observed.previous(name) };
        let missing = || format!("previous terminated container {name:?} in pod {:?} not found", pod.name());
        return candidate.ok_or_else(missing);
    }
    newest.ok_or_else(|| {
        let about = format!("container {name:?} in pod {:?} is waiting to start", pod.name());
        match reason.as_deref() {
            Some("ErrImagePull") => format!("{about}: image can't be pulled"),
            Some("ImagePullBackOff") => format!("{about}: trying and failing to pull image"),
            Some(reason) => format!("{about}: {reason}"),
            None => format!("{about} - no logs yet"),
        }
    })
}

fn waiting_reason(pod: &Pod, name: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found: Option<&ContainerStatus> = lists.iter().flat_map(|l| l.iter().flatten()).find(|s| s.name == name);
    found?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}
