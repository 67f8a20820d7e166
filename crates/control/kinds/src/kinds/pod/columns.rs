//! What `kubectl get pods` shows.

use crate::{
    column::{self, Column},
    tree,
};
use jiff::Timestamp;
use serde_json::Value;

pub(super) static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Ready", "string", "", 0, "The aggregate readiness state of this pod for accepting traffic."),
    Column::new("Status", "string", "", 0, "The aggregate status of the containers in this pod."),
    Column::new(
        "Restarts",
        "string",
        "",
        0,
        "The number of times the containers in this pod have been restarted and when the last container in this \
         pod has restarted.",
    ),
    column::AGE,
    Column::new(
        "IP",
        "string",
        "",
        1,
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    Column::new(
        "Node",
        "string",
        "",
        1,
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for \
         scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node \
         becomes responsible for the lifecycle of this pod. This field should not be used to express a desire \
         for the pod to be scheduled on a specific node. \
         https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    Column::new(
        "Nominated Node",
        "string",
        "",
        1,
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled \
         right away as preemption victims receive their graceful termination periods. This field does not \
         guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere \
         if other nodes become available sooner. Scheduler may also decide to give the resources on this node to \
         a higher priority pod that is created after preemption. As a result, this field may be different than \
         PodSpec.nodeName when the pod is scheduled.",
    ),
    Column::new(
        "Readiness Gates",
        "string",
        "",
        1,
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its \
         containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" \
         More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

pub(super) static TEMPLATE_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Containers", "string", "", 0, "Names of each container in the template."),
    Column::new("Images", "string", "", 0, "Images referenced by each container in the template."),
    Column::new("Pod Labels", "string", "", 0, "The labels for the pod template."),
];

/// The names and the images of a template's containers.
pub(crate) fn containers_and_images(template: &Value) -> (String, String) {
    let all = tree::list(&template["spec"], "containers");
    let joined = |key: &str| all.iter().map(|container| tree::text(container, key)).collect::<Vec<_>>().join(",");
    (joined("name"), joined("image"))
}

/// Labels as `a=b,c=d`; `<none>` for none.
pub(crate) fn labels_text(labels: &Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// What the containers' states add up to.
#[derive(Default)]
struct Summary<'a> {
    reason: String,
    ready: usize,
    restarts: i64,
    /// When a container last ended, as text: RFC 3339 of the same zone sorts by time.
    last_restart: &'a str,
}

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let total = tree::list(spec, "containers").len()
        + tree::list(spec, "initContainers").iter().filter(|container| is_sidecar(container)).count();
    let summary = summarize(pod);
    let restarts = match (summary.restarts, summary.last_restart) {
        (0, _) | (_, "") => summary.restarts.to_string(),
        (count, at) => format!("{count} ({} ago)", column::since(&at.into(), now)),
    };
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    let first_ip = tree::text(tree::list(status, "podIPs").first().unwrap_or(&Value::Null), "ip");
    let ip = if first_ip.is_empty() { tree::text(status, "podIP") } else { first_ip };
    vec![
        tree::text(&pod["metadata"], "name").into(),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        column::age(pod, now),
        or_none(ip),
        or_none(tree::text(spec, "nodeName")),
        or_none(tree::text(status, "nominatedNodeName")),
        readiness_gates(spec, status).into(),
    ]
}

fn is_sidecar(container: &Value) -> bool {
    tree::text(container, "restartPolicy") == "Always"
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    tree::list(status, "conditions").iter().find(|condition| tree::text(condition, "type") == kind)
}

fn condition_is_true(status: &Value, kind: &str) -> bool {
    condition(status, kind).is_some_and(|condition| tree::text(condition, "status") == "True")
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = tree::list(spec, "readinessGates");
    let open = gates.iter().filter(|gate| condition_is_true(status, tree::text(gate, "conditionType"))).count();
    if gates.is_empty() { "<none>".into() } else { format!("{open}/{}", gates.len()) }
}

fn summarize(pod: &Value) -> Summary<'_> {
    let status = &pod["status"];
    let phase = tree::text(status, "phase");
    let own = tree::text(status, "reason");
    let mut summary = Summary { reason: if own.is_empty() { phase } else { own }.to_owned(), ..Summary::default() };
    if condition(status, "PodScheduled").is_some_and(|it| tree::text(it, "reason") == "SchedulingGated") {
        summary.reason = "SchedulingGated".into();
    }
    let (initializing, sidecars) = summarize_init(pod, &mut summary);
    if !initializing || condition_is_true(status, "Initialized") {
        (summary.restarts, summary.last_restart) = sidecars;
        summarize_main(status, &mut summary);
    }
    if tree::has(&pod["metadata"], "deletionTimestamp") {
        if own == "NodeLost" {
            summary.reason = "Unknown".into();
        } else if phase != "Succeeded" && phase != "Failed" {
            summary.reason = "Terminating".into();
        }
    }
    summary
}

/// Adds the init containers. Answers whether one is still at work, and the restarts of sidecars.
fn summarize_init<'a>(pod: &'a Value, summary: &mut Summary<'a>) -> (bool, (i64, &'a str)) {
    let containers = tree::list(&pod["spec"], "initContainers");
    let mut sidecars = (0, "");
    for (i, container) in tree::list(&pod["status"], "initContainerStatuses").iter().enumerate() {
        let ended = ended_at(container);
        summary.restarts += tree::int(container, "restartCount");
        summary.last_restart = summary.last_restart.max(ended);
        let sidecar = containers.iter().any(|one| one["name"] == container["name"] && is_sidecar(one));
        if sidecar {
            sidecars = (sidecars.0 + tree::int(container, "restartCount"), sidecars.1.max(ended));
        }
        let state = &container["state"];
        let (terminated, waiting) = (&state["terminated"], tree::text(&state["waiting"], "reason"));
        if terminated.is_object() && tree::int(terminated, "exitCode") == 0 {
            continue;
        }
        if sidecar && tree::flag(container, "started") {
            summary.ready += usize::from(tree::flag(container, "ready"));
            continue;
        }
        summary.reason = if terminated.is_object() {
            format!("Init:{}", terminated_reason(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", containers.len())
        };
        return (true, sidecars);
    }
    (false, sidecars)
}

fn summarize_main<'a>(status: &'a Value, summary: &mut Summary<'a>) {
    let mut running = false;
    for container in tree::list(status, "containerStatuses").iter().rev() {
        summary.restarts += tree::int(container, "restartCount");
        summary.last_restart = summary.last_restart.max(ended_at(container));
        let state = &container["state"];
        let waiting = tree::text(&state["waiting"], "reason");
        if !waiting.is_empty() {
            summary.reason = waiting.into();
        } else if state["terminated"].is_object() {
            summary.reason = terminated_reason(&state["terminated"]);
        } else if tree::flag(container, "ready") && state["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        summary.reason = if condition_is_true(status, "Ready") { "Running".into() } else { "NotReady".into() };
    }
}

fn ended_at(container: &Value) -> &str {
    tree::text(&container["lastState"]["terminated"], "finishedAt")
}

fn terminated_reason(terminated: &Value) -> String {
    let (reason, signal) = (tree::text(terminated, "reason"), tree::int(terminated, "signal"));
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", tree::int(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}
