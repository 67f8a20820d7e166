//! NodeMetrics and PodMetrics as clients see them: objects, lists, tables and discovery.
//!
//! Source: `k8s.io/metrics/pkg/apis/metrics/v1beta1`; the answers of metrics-server.

use crate::samples::Rate;
use jiff::Timestamp;
use pintle_types::quantity::{Format, Quantity};
use serde_json::{Value, json};

pub const GROUP: &str = "metrics.k8s.io";
pub const VERSION: &str = "v1beta1";
/// The priorities of its APIService, which are those of metrics-server.
pub const GROUP_PRIORITY: i32 = 100;
pub const VERSION_PRIORITY: i32 = 100;

/// The two resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Nodes,
    Pods,
}

impl Resource {
    /// By its plural name in a path.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Nodes, Self::Pods].into_iter().find(|resource| resource.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
        }
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetrics",
            Self::Pods => "PodMetrics",
        }
    }

    /// The name by which failures call it.
    pub fn long_name(self) -> &'static str {
        match self {
            Self::Nodes => "nodemetrics",
            Self::Pods => "podmetrics",
        }
    }
}

fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

/// The `APIResourceList` of the version.
pub fn discovery() -> Value {
    let resource = |resource: Resource| {
        json!({
            "name": resource.name(), "singularName": "", "namespaced": resource == Resource::Pods,
            "kind": resource.kind(), "verbs": ["get", "list"],
        })
    };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(),
        "resources": [resource(Resource::Nodes), resource(Resource::Pods)],
    })
}

/// The NodeMetrics of a node, or nothing of an object that has no name.
pub fn node(node: &Value, rate: &Rate, now: Timestamp) -> Value {
    let mut object = head(Resource::Nodes, node, rate.at, rate.window, now);
    object["usage"] = usage(rate.cpu_nanos, rate.memory);
    object
}

/// The PodMetrics of a pod. Its time is that of the container that was measured first.
pub fn pod(pod: &Value, containers: &[(&str, Rate)], now: Timestamp) -> Option<Value> {
    let first = containers.iter().map(|(_, rate)| rate).min_by_key(|rate| rate.at)?;
    let mut object = head(Resource::Pods, pod, first.at, first.window, now);
    let of_container = |(name, rate): &(&str, Rate)| json!({"name": name, "usage": usage(rate.cpu_nanos, rate.memory)});
    object["containers"] = containers.iter().map(of_container).collect();
    Some(object)
}

fn head(resource: Resource, of: &Value, at: i64, window: i64, now: Timestamp) -> Value {
    let mut metadata = json!({"name": of["metadata"]["name"]});
    if resource == Resource::Pods {
        metadata["namespace"] = of["metadata"]["namespace"].clone();
    }
    metadata["creationTimestamp"] = seconds(now).into();
    if let Some(labels) = of["metadata"]["labels"].as_object().filter(|labels| !labels.is_empty()) {
        metadata["labels"] = labels.clone().into();
    }
    let at = Timestamp::from_millisecond(at).unwrap_or(now);
    json!({
        "kind": resource.kind(), "apiVersion": api_version(), "metadata": metadata,
        "timestamp": seconds(at), "window": duration(window),
    })
}

fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

fn usage(cpu_nanos: u64, memory: u64) -> Value {
    // A number with a suffix is a quantity.
    let cpu = format!("{cpu_nanos}n").parse().unwrap_or(Quantity::ZERO);
    let memory = Quantity::from_units(i64::try_from(memory).unwrap_or(i64::MAX), Format::BinarySi);
    json!({"cpu": cpu.to_string(), "memory": memory.to_string()})
}

/// A list of them.
pub fn list(resource: Resource, items: Vec<Value>) -> Value {
    json!({"kind": format!("{}List", resource.kind()), "apiVersion": api_version(), "metadata": {}, "items": items})
}

/// A table of them, in that version of `meta.k8s.io`; `row_object` says what each row carries of its object.
pub fn table(version: &str, items: &[Value], row_object: impl Fn(&Value) -> Value) -> Value {
    let column = |name: &str, kind: &str, format: &str, description: &str| json!({"name": name, "type": kind, "format": format, "description": description, "priority": 0});
    let row = |object: &Value| {
        let (cpu, memory) = total(object);
        let cells = json!([object["metadata"]["name"], cpu.to_string(), memory.to_string(), object["window"]]);
        json!({"cells": cells, "object": row_object(object)})
    };
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
        "columnDefinitions": [
            column("Name", "string", "name", "Name of the resource"),
            column("cpu", "string", "", ""),
            column("memory", "string", "", ""),
            column("Window", "string", "", ""),
        ],
        "rows": items.iter().map(row).collect::<Vec<_>>(),
    })
}

/// What an object says is used: of pods, by all containers together.
fn total(object: &Value) -> (Quantity, Quantity) {
    let read = |usage: &Value, name: &str| usage[name].as_str().and_then(|text| text.parse().ok());
    let of =
        |usage: &Value| (read(usage, "cpu").unwrap_or(Quantity::ZERO), read(usage, "memory").unwrap_or(Quantity::ZERO));
    match object["containers"].as_array() {
        None => of(&object["usage"]),
        Some(containers) => {
            let zero = (Quantity::ZERO, Quantity::ZERO);
            containers.iter().map(|c| of(&c["usage"])).fold(zero, |sum, one| (sum.0 + one.0, sum.1 + one.1))
        }
    }
}

/// Milliseconds as Go writes durations: `15.02s`, `1m0.5s`, `200ms`.
fn duration(millis: i64) -> String {
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let seconds = match fraction.trim_end_matches('0') {
        "" => format!("{}s", rest / 1000),
        digits => format!("{}.{digits}s", rest / 1000),
    };
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { at: 1_700_000_000_999, window: 15_020, cpu_nanos: 1_500_000, memory: 20 << 20 };

    #[test]
    fn durations_are_written_as_in_go() {
        for (millis, text) in
            [(200, "200ms"), (15_020, "15.02s"), (15_000, "15s"), (60_500, "1m0.5s"), (3_661_000, "1h1m1s")]
        {
            assert_eq!(duration(millis), text);
        }
    }

    #[test]
    fn objects_and_tables() {
        let now = Timestamp::from_second(1_700_000_010).unwrap();
        let of = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}}});
        let object = pod(&of, &[("c", RATE), ("d", RATE)], now).unwrap();
        let usage = json!({"cpu": "1500u", "memory": "20Mi"});
        assert_eq!(
            object,
            json!({
                "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1", "timestamp": "2023-11-14T22:13:20Z",
                "window": "15.02s",
                "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"},
                             "creationTimestamp": "2023-11-14T22:13:30Z"},
                "containers": [{"name": "c", "usage": usage}, {"name": "d", "usage": usage}],
            })
        );
        let table = table("v1", &[object], |_| Value::Null);
        assert_eq!(table["rows"][0]["cells"], json!(["p", "3m", "40Mi", "15.02s"]));
        let object = node(&json!({"metadata": {"name": "n"}}), &RATE, now);
        assert_eq!((&object["usage"], &object["metadata"]["namespace"]), (&usage, &Value::Null));
        assert_eq!(pod(&of, &[], now), None);
    }
}
