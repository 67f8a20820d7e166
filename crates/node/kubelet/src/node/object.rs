//! The Node object: what the machine is, whether it is well, which images it has.

use super::Facts;
use super::machine::architecture;
use pintle_cri::RuntimeHandler;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Node, NodeSpec};
use pintle_types::quantity::Quantity;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Images that the object lists, the largest first.
const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;
/// Says that volumes are attached by the controller of the cluster, as upstream's kubelets say by default.
const MANAGED_ATTACHING: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// The object to register with. `status` is its status.
pub fn node(facts: &Facts, status: Value) -> Node {
    let config = &facts.config;
    let mut node = Node::default();
    node.metadata.name = Some(config.node_name.clone());
    node.metadata.labels = Some(labels(facts));
    node.metadata.annotations = Some(BTreeMap::from([(MANAGED_ATTACHING.to_owned(), "true".to_owned())]));
    node.spec = Some(NodeSpec { taints: Some(config.taints.clone()).filter(|t| !t.is_empty()), ..Default::default() });
    let mut tree = node.to_value();
    if let Some(object) = tree.as_object_mut() {
        object.insert("status".into(), status);
    }
    // The status was made by this module, so it has the form of one.
    Node::from_value(tree).unwrap_or(node)
}

fn labels(facts: &Facts) -> BTreeMap<String, String> {
    let arch = architecture();
    let own = [
        ("beta.kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("kubernetes.io/hostname", &facts.config.node_name),
        ("kubernetes.io/os", "linux"),
    ];
    let mut labels: BTreeMap<String, String> = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    labels.extend(facts.config.labels.clone());
    labels
}

/// The status now. Transition times are kept from the object that is there.
pub async fn status(facts: &Facts, before: Option<&Node>) -> Value {
    let config = &facts.config;
    let machine = &facts.machine;
    let (capacity, allocatable) = resources(facts, before);
    let port = config.server.as_ref().map_or(10250, |s| s.bind.port());
    let internal = config.node_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}));
    let addresses: Vec<Value> = internal.chain([json!({"type": "Hostname", "address": config.node_name})]).collect();
    json!({
        "addresses": addresses,
        "capacity": capacity,
        "allocatable": allocatable,
        "conditions": conditions(facts, before).await,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "images": images(facts).await,
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": machine.boot_id,
            "containerRuntimeVersion": format!("{}://{}", facts.runtime.runtime_name, facts.runtime.runtime_version),
            "kernelVersion": machine.kernel_version,
            "kubeProxyVersion": "",
            "kubeletVersion": config.kubelet_version,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "systemUUID": machine.system_uuid,
        },
        "runtimeHandlers": handlers(facts).await,
    })
}

/// What there is, and what of it pods can have: not what is reserved, and no devices that are unwell. Resources that
/// others say the node has are theirs to count; all of those can be had.
fn resources(facts: &Facts, before: Option<&Node>) -> (Value, Value) {
    let mut capacity = machine_resources(facts);
    let mut allocatable = capacity.clone();
    let reserved = facts.config.options.placement.reserved;
    if reserved.milli_cpu > 0 {
        let milli = (u64::from(facts.machine.processors) * 1000).saturating_sub(reserved.milli_cpu);
        let text = format!("{milli}m");
        allocatable["cpu"] = text.parse::<Quantity>().map_or(text, |quantity| quantity.to_string()).into();
    }
    allocatable["memory"] = kibibytes(facts.machine.plain_memory_bytes().saturating_sub(reserved.memory_bytes)).into();
    let counts = facts.host.placement.counts();
    let told = before.and_then(|node| node.status.as_ref()?.capacity.as_ref()).into_iter().flatten();
    for (name, amount) in told.filter(|(name, _)| name.contains('/') && !counts.contains_key(*name)) {
        capacity[name] = amount.0.clone().into();
        allocatable[name] = amount.0.clone().into();
    }
    for (name, count) in counts {
        capacity[&name] = count.capacity.to_string().into();
        allocatable[&name] = count.allocatable.to_string().into();
    }
    (capacity, allocatable)
}

fn machine_resources(facts: &Facts) -> Value {
    let storage = facts.config.hardware.disk(&facts.config.root_dir).map_or(0, |(all, _)| all);
    let mut all = json!({
        "cpu": facts.machine.processors.to_string(),
        "memory": kibibytes(facts.machine.memory_bytes),
        "ephemeral-storage": kibibytes(storage),
        "pods": facts.config.max_pods.to_string(),
    });
    for pages in &facts.machine.huge_pages {
        all[pages.resource()] = kibibytes(pages.bytes()).into();
    }
    all
}

/// In the form in which the API server gives it back, so that it compares equal.
fn kibibytes(bytes: u64) -> String {
    let text = format!("{}Ki", bytes / 1024);
    text.parse::<Quantity>().map_or(text, |quantity| quantity.to_string())
}

async fn handlers(facts: &Facts) -> Value {
    let handlers = facts.config.runtime.status().await.map(|s| s.handlers).unwrap_or_default();
    let handler = |handler: RuntimeHandler| {
        let features = json!({
            "recursiveReadOnlyMounts": handler.recursive_read_only_mounts,
            "userNamespaces": handler.user_namespaces,
        });
        json!({"name": handler.name, "features": features})
    };
    handlers.into_iter().map(handler).collect()
}

async fn images(facts: &Facts) -> Value {
    let mut list = facts.config.runtime.list_images().await.unwrap_or_default();
    list.sort_by_key(|image| std::cmp::Reverse(image.size));
    let image = |image: pintle_cri::Image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_NAMES).collect();
        json!({"names": names, "sizeBytes": image.size})
    };
    list.into_iter().take(MAX_IMAGES).map(image).collect()
}

struct Condition {
    name: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

fn pressure(name: &'static str, there: bool, yes: (&'static str, &str), no: (&'static str, &str)) -> Condition {
    let (reason, message) = if there { yes } else { no };
    Condition { name, status: there, reason, message: message.to_owned() }
}

fn pressures(facts: &Facts) -> [Condition; 3] {
    let under = |name| facts.host.pressures.is_under(name);
    [
        pressure(
            "MemoryPressure",
            under("MemoryPressure"),
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            under("DiskPressure"),
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            under("PIDPressure"),
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
    ]
}

async fn conditions(facts: &Facts, before: Option<&Node>) -> Vec<Value> {
    let now = facts.config.clock.now_seconds().to_string();
    let list = pressures(facts).into_iter().chain([ready(facts).await]);
    let old = before.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let value = |condition: Condition| {
        let status = if condition.status { "True" } else { "False" };
        let same = old.iter().find(|c| c.type_ == condition.name && c.status == status);
        let since = same.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0.to_string());
        json!({
            "type": condition.name,
            "status": status,
            "reason": condition.reason,
            "message": condition.message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": since.unwrap_or_else(|| now.clone()),
        })
    };
    list.map(value).collect()
}

async fn ready(facts: &Facts) -> Condition {
    let mut problems: Vec<String> = match facts.config.runtime.status().await {
        Err(error) => vec![format!("container runtime is down: {error}")],
        Ok(status) => {
            let network = status.network_ready.err().map(|e| {
                format!(
                    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{e}"
                )
            });
            let runtime = status.runtime_ready.err().map(|e| format!("container runtime not ready: {e}"));
            runtime.or(network).into_iter().collect()
        }
    };
    problems.extend(facts.host.ending.is_set().then(|| "node is shutting down".to_owned()));
    let message = match problems.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    };
    match message {
        Some(message) => Condition { name: "Ready", status: false, reason: "KubeletNotReady", message },
        None => Condition {
            name: "Ready",
            status: true,
            reason: "KubeletReady",
            message: "kubelet is posting ready status".into(),
        },
    }
}

/// Whether a status says that the node is ready.
pub fn is_ready(status: &Value) -> bool {
    let list = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Whether the object that is there says something else; heartbeats alone do not count.
pub fn differs(node: &Node, status: &Value) -> bool {
    let there = node.to_value().get_mut("status").map(Value::take).unwrap_or_default();
    let empty = Map::new();
    let wanted = status.as_object().unwrap_or(&empty);
    wanted.iter().any(|(key, value)| match key.as_str() {
        "conditions" => conditions_differ(&there[key], value),
        _ => there[key] != *value && !(is_empty(value) && is_empty(&there[key])),
    })
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn conditions_differ(there: &Value, wanted: &Value) -> bool {
    let find = |c: &Value| there.as_array().and_then(|l| l.iter().find(|t| t["type"] == c["type"])).cloned();
    let differs = |c: &Value| match find(c) {
        None => true,
        Some(t) => ["status", "reason", "message"].iter().any(|f| t[f] != c[f]),
    };
    wanted.as_array().is_some_and(|list| list.iter().any(differs))
}
