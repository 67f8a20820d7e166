//! Tells the API server a pod's status: a patch with what changed, and nothing when nothing did.

use crate::api::{Api, ApiError};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};

/// The conditions that the kubelet owns; others are left alone.
pub const OWN_CONDITIONS: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];
/// Conditions that others set as well: told when they change here, never taken from what others said.
const ADDED_CONDITIONS: [&str; 1] = ["DisruptionTarget"];
/// Fields that are never taken back once they were told.
const KEPT: [&str; 6] =
    ["startTime", "qosClass", "nominatedNodeName", "resize", "resourceClaimStatuses", "extendedResourceClaimStatus"];

/// Sends what differs. Returns the version that the pod has after that; nothing when there was nothing to send.
// flow: pod 16/16
pub async fn push(api: &dyn Api, pod: &Pod, old: &PodStatus, new: &PodStatus) -> Result<Option<u64>, ApiError> {
    let Some(status) = difference(&tree(old), &tree(new)) else { return Ok(None) };
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
    api.patch_status(pod.namespace(), pod.name(), patch).await.map(Some)
}

fn tree(status: &PodStatus) -> Value {
    let pod = Pod { status: Some(status.clone()), ..Default::default() };
    pod.to_value().get_mut("status").map(Value::take).unwrap_or_default()
}

/// The strategic merge patch from one status to another; nothing when they are equal.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
        match key.as_str() {
            "conditions" => conditions(old.get(key), value, &mut patch),
            "podIPs" | "hostIPs" => {
                patch.insert(key.clone(), addresses(old.get(key), value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key) && !KEPT.contains(&key.as_str())) {
        let gone = match key.as_str() {
            "podIPs" | "hostIPs" => addresses(old.get(key), &json!([])),
            _ => Value::Null,
        };
        patch.insert(key.clone(), gone);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Lists merged by `ip`: the new ones, and an order to delete what is gone.
fn addresses(old: Option<&Value>, new: &Value) -> Value {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut out = list(new);
    for before in old.map(list).unwrap_or_default() {
        if !out.iter().any(|a| a["ip"] == before["ip"]) {
            out.push(json!({"ip": before["ip"], "$patch": "delete"}));
        }
    }
    Value::Array(out)
}

/// Own conditions that changed, and the order of all.
fn conditions(old: Option<&Value>, new: &Value, patch: &mut Map<String, Value>) {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let old = list(old);
    let all = list(Some(new));
    let told = |name: &str| OWN_CONDITIONS.contains(&name) || ADDED_CONDITIONS.contains(&name);
    let own = |c: &&Value| c["type"].as_str().is_some_and(told);
    let changed = all.iter().filter(own).filter(|c| !old.contains(c));
    let mut changed: Vec<Value> = changed.map(|c| with_removals(&old, c.clone())).collect();
    let there = |name: &Value| all.iter().any(|c| c["type"] == *name);
    let gone = old.iter().filter(|c| own(c) && !there(&c["type"]));
    changed.extend(gone.map(|c| json!({"type": c["type"], "$patch": "delete"})));
    if changed.is_empty() {
        return;
    }
    let order: Vec<Value> = all.iter().map(|c| json!({"type": c["type"]})).collect();
    patch.insert("$setElementOrder/conditions".into(), Value::Array(order));
    patch.insert("conditions".into(), Value::Array(changed));
}

/// A reason or message that a condition had and has no more is taken back: elements of the list are merged.
fn with_removals(old: &[Value], mut condition: Value) -> Value {
    let before = old.iter().find(|c| c["type"] == condition["type"]);
    let gone: Vec<String> = before
        .and_then(Value::as_object)
        .map(|fields| fields.keys().filter(|key| condition.get(key.as_str()).is_none()).cloned().collect())
        .unwrap_or_default();
    for key in gone {
        condition[key] = Value::Null;
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_are_sent() {
        let old = json!({"phase": "Pending", "podIP": "1", "podIPs": [{"ip": "1"}], "startTime": "t",
            "conditions": [{"type": "Ready", "status": "False", "reason": "r"}, {"type": "mine", "status": "True"}]});
        assert_eq!(difference(&old, &old), None);
        let new = json!({"phase": "Running", "podIP": "2", "podIPs": [{"ip": "2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "mine", "status": "False"}]});
        let expected = json!({
            "phase": "Running",
            "podIP": "2",
            "podIPs": [{"ip": "2"}, {"ip": "1", "$patch": "delete"}],
            "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "mine"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": null}],
        });
        assert_eq!(difference(&old, &new), Some(expected));
        assert_eq!(difference(&json!({"reason": "x"}), &json!({})), Some(json!({"reason": null})));
    }
}
