//! Tells of pods and what they use. Only what the runtime knows is told; nothing is made up.

use super::{Body, Refusal, State, respond};
use crate::labels;
use http::{Response, StatusCode};
use jiff::Timestamp;
use pintle_cri::{ContainerFilter, ContainerState, ContainerStats};
use pintle_types::Kind;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

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

fn time(nanos: i64) -> String {
    Timestamp::from_second(nanos / 1_000_000_000).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

async fn all_stats(state: &State) -> Result<Vec<ContainerStats>, Refusal> {
    let list = state.host.runtime.list_container_stats(ContainerFilter::default()).await;
    list.map_err(|e| respond::refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// `/stats/summary`
pub async fn summary(state: &State) -> Response<Body> {
    let list = match all_stats(state).await {
        Ok(list) => list,
        Err(refusal) => return *refusal,
    };
    let mut pods: BTreeMap<String, Value> = BTreeMap::new();
    for stats in list {
        let Some(pod) = reference(&stats.labels) else { continue };
        let uid = pod["uid"].as_str().unwrap_or_default().to_owned();
        let entry = pods.entry(uid).or_insert_with(|| json!({"podRef": pod, "containers": []}));
        if let Some(containers) = entry["containers"].as_array_mut() {
            containers.push(container(&stats));
        }
    }
    let pods: Vec<Value> = pods.into_values().collect();
    let node = json!({"nodeName": state.host.settings.node_name});
    respond::json(json!({"node": node, "pods": pods}).to_string())
}

fn container(stats: &ContainerStats) -> Value {
    let time = time(stats.timestamp);
    json!({
        "name": stats.metadata.name,
        "cpu": {"time": time, "usageCoreNanoSeconds": stats.cpu_usage_nanos},
        "memory": {
            "time": time,
            "usageBytes": stats.memory_usage_bytes,
            "workingSetBytes": stats.memory_working_set_bytes,
            "rssBytes": stats.memory_rss_bytes,
        },
        "rootfs": {
            "time": time,
            "usedBytes": stats.writable_layer_bytes,
            "inodesUsed": stats.writable_layer_inodes,
        },
    })
}

/// `/metrics/resource`, in the text format of Prometheus.
pub async fn resource_metrics(state: &State) -> Response<Body> {
    let list = match all_stats(state).await {
        Ok(list) => list,
        Err(refusal) => return *refusal,
    };
    let mut text = String::new();
    let cpu = |s: &ContainerStats| format!("{}", s.cpu_usage_nanos as f64 / 1e9);
    let memory = |s: &ContainerStats| s.memory_working_set_bytes.to_string();
    let help = "[STABLE] Cumulative cpu time consumed by the container in core-seconds";
    family(&mut text, "container_cpu_usage_seconds_total", "counter", help, &list, cpu);
    let help = "[STABLE] Current working set of the container in bytes";
    family(&mut text, "container_memory_working_set_bytes", "gauge", help, &list, memory);
    respond::text(StatusCode::OK, text)
}

fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    list: &[ContainerStats],
    value: impl Fn(&ContainerStats) -> String,
) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for stats in list {
        let get = |key: &str| stats.labels.get(key).map(String::as_str).unwrap_or_default();
        let (pod, namespace) = (get(labels::POD_NAME), get(labels::POD_NAMESPACE));
        if pod.is_empty() {
            continue;
        }
        let (container, value, millis) = (&stats.metadata.name, value(stats), stats.timestamp / 1_000_000);
        // The same.
        let _ = writeln!(
            text,
            "{name}{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {value} {millis}"
        );
    }
}
