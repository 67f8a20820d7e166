//! Which taints a node should have, what its conditions become when it falls silent, and what pods bear.

use super::zones::Execute;
use pintle_clock::Timestamp;
use pintle_types::Time;
use pintle_types::k8s::api::core::v1::{Node, NodeCondition, Taint, Toleration};
use std::time::Duration;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const MANAGED: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Conditions that only a kubelet can know.
const KUBELETS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The value of a condition; nothing when the node does not have it.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Whether the node's kubelet said last that it takes pods.
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Whether somebody said that the node is down for good: upstream's non-graceful node shutdown.
pub fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Whether the node has a taint because of which pods leave it while it is not ready.
pub fn is_executing(node: &Node) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|t| t.effect == "NoExecute" && of_ready(t))
}

fn of_ready(taint: &Taint) -> bool {
    [NOT_READY, UNREACHABLE].contains(&taint.key.as_str())
}

/// The taints that the node should have; nothing when it has them already. Taints of others stay.
pub fn taints(node: &Node, execute: Execute, now: Timestamp) -> Option<Vec<Taint>> {
    let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let executes = match execute {
        Execute::Add => true,
        Execute::Keep => is_executing(node),
        Execute::Remove => false,
    };
    let wanted = wanted_taints(node, executes);
    let is_ours = |taint: &Taint| {
        let pressure = MANAGED.iter().any(|(_, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
        (of_ready(taint) && taint.effect != "PreferNoSchedule") || (pressure && taint.effect == "NoSchedule")
    };
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| *key == taint.key && *effect == taint.effect);
    let mut taints: Vec<Taint> = present.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            let time_added = Some(Time(now));
            taints.push(Taint { key: (*key).into(), effect: (*effect).into(), time_added, value: None });
        }
    }
    (taints != present).then_some(taints)
}

fn wanted_taints(node: &Node, executes: bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let ready = match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    wanted.extend(ready.map(|key| (key, "NoSchedule")));
    for (type_, key) in MANAGED {
        if condition(node, type_).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default() {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted.extend(ready.filter(|_| executes).map(|key| (key, "NoExecute")));
    wanted
}

/// The conditions of a node that nothing is heard of any more.
pub fn silent(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let mut conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    for type_ in KUBELETS {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) if condition.status == "Unknown" => (),
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: type_.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    conditions
}

/// How long a pod bears taints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bears {
    Forever,
    /// Counted from when the taint was added.
    For(Duration),
    Not,
}

/// How long tolerations bear all of the taints.
pub fn bears(tolerations: &[Toleration], taints: &[Taint]) -> Bears {
    let mut shortest = None;
    for taint in taints {
        let mut tolerating = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if tolerating.peek().is_none() {
            return Bears::Not;
        }
        let seconds = tolerating.filter_map(|toleration| toleration.toleration_seconds);
        let seconds = seconds.map(|seconds| u64::try_from(seconds).unwrap_or_default()).min();
        shortest = shortest.into_iter().chain(seconds).min();
    }
    shortest.map_or(Bears::Forever, |seconds| Bears::For(Duration::from_secs(seconds)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let (key, value) = (toleration.key.as_deref().unwrap_or_default(), toleration.value.as_deref());
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let equal = value.unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            None | Some("" | "Equal") => !key.is_empty() && equal,
            _ => false,
        }
}
