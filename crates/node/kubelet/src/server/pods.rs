//! Tells of the pods that are bound to this node, and of those that run.

use super::{Body, State, respond};
use crate::labels;
use http::{Response, StatusCode};
use pintle_cri::{ContainerFilter, ContainerState};
use pintle_types::Kind;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `/pods`: the pods that are bound to this node.
pub fn pods(state: &State) -> Response<Body> {
    let mut body = br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#.to_vec();
    for (i, pod) in state.pods.list().iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend(pod.encode());
    }
    body.extend(b"]}");
    respond::json(body)
}

/// `/runningpods/`: what the runtime runs, as pods.
pub async fn running_pods(state: &State) -> Response<Body> {
    let filter = ContainerFilter { state: Some(ContainerState::Running), ..Default::default() };
    let containers = match state.host.runtime.list_containers(filter).await {
        Ok(containers) => containers,
        Err(error) => return respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut pods: BTreeMap<String, Value> = BTreeMap::new();
    for container in containers {
        let Some(pod) = reference(&container.labels) else { continue };
        let uid = pod["uid"].as_str().unwrap_or_default().to_owned();
        let entry =
            pods.entry(uid).or_insert_with(|| json!({"metadata": pod, "spec": {"containers": []}, "status": {}}));
        if let Some(list) = entry["spec"]["containers"].as_array_mut() {
            list.push(json!({"name": container.metadata.name, "image": container.image, "resources": {}}));
        }
    }
    let items: Vec<Value> = pods.into_values().collect();
    respond::json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}).to_string())
}

fn reference(labels: &pintle_cri::Labels) -> Option<Value> {
    let get = |key: &str| labels.get(key).cloned();
    Some(json!({
        "name": get(labels::POD_NAME)?,
        "namespace": get(labels::POD_NAMESPACE)?,
        "uid": get(labels::POD_UID)?,
    }))
}
