//! What pretending nodes say, as JSON: Node objects, leases, the states of pods.

use crate::Config;
use crate::pods::Known;
use pintle_clock::Timestamp;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The label of pretending nodes, and the key of their taint.
pub const LABEL: &str = "pintle.io/hollow";
/// Says that the cluster's controller attaches volumes, as upstream's kubelets say by default.
const MANAGED_ATTACHING: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// Where the addresses of nodes begin: a range that is for neither the internet nor anybody's network (RFC 2544).
const NODES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Where the addresses of pods begin (RFC 6598), and how many there are.
const PODS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const POD_ADDRESSES: u32 = 1 << 22;
/// Addresses of each node's pods.
const OF_A_NODE: u32 = 256;

pub fn node_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(NODES) + number % (1 << 17))
}

/// The address of the pod that a node starts as its `turn`th.
pub fn pod_address(number: u32, turn: u32) -> Ipv4Addr {
    let offset = number.wrapping_mul(OF_A_NODE).wrapping_add(turn % OF_A_NODE) % POD_ADDRESSES;
    Ipv4Addr::from(u32::from(PODS) + offset)
}

pub fn node(config: &Config, number: u32, now: Timestamp) -> Value {
    let name = config.name(number);
    let mut labels = json!({
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", LABEL: "true",
    });
    if config.zones > 0 {
        labels["topology.kubernetes.io/zone"] = format!("zone-{}", number % config.zones + 1).into();
    }
    for (key, value) in &config.labels {
        labels[key] = value.as_str().into();
    }
    let taint = json!([{"key": LABEL, "value": "true", "effect": "NoSchedule"}]);
    let spec = if config.tainted { json!({ "taints": taint }) } else { json!({}) };
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {MANAGED_ATTACHING: "true"}},
        "spec": spec, "status": status(config, number, now),
    })
}

pub fn status(config: &Config, number: u32, now: Timestamp) -> Value {
    let machine = &config.machine;
    let resources = json!({
        "cpu": format!("{}m", machine.milli_cpu), "memory": format!("{}Ki", machine.memory_bytes >> 10),
        "pods": machine.max_pods.to_string(), "ephemeral-storage": "1Ti",
    });
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        let now = now.to_string();
        json!({
            "type": type_, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let enough = |type_: &str, reason: &str, what: &str| {
        condition(type_, "False", reason, &format!("kubelet has {what} available"))
    };
    json!({
        "addresses": [
            {"type": "InternalIP", "address": node_address(number).to_string()},
            {"type": "Hostname", "address": config.name(number)},
        ],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            enough("MemoryPressure", "KubeletHasSufficientMemory", "sufficient memory"),
            enough("DiskPressure", "KubeletHasNoDiskPressure", "no disk pressure"),
            enough("PIDPressure", "KubeletHasSufficientPID", "sufficient PID"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": "amd64", "bootID": format!("boot-{number}"), "containerRuntimeVersion": "hollow://1",
            "kernelVersion": "0.0.0", "kubeProxyVersion": "", "kubeletVersion": config.version,
            "machineID": format!("{number:032x}"), "operatingSystem": "linux", "osImage": "Pretended",
            "systemUUID": format!("{number:032x}"),
        },
    })
}

pub fn lease_spec(config: &Config, name: &str, now: &str) -> Value {
    let seconds = config.times.renew.as_secs().max(1) * 4;
    json!({"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": now})
}

pub fn lease(config: &Config, namespace: &str, name: &str, uid: &str, now: &str) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid});
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": [owner]},
        "spec": lease_spec(config, name, now),
    })
}

/// A patch that says that a pod runs and is ready.
pub fn running(pod: &Known, address: Ipv4Addr, now: Timestamp) -> Value {
    let ip = if pod.host_network { node_address(pod.node) } else { address }.to_string();
    let at = now.to_string();
    let state = json!({"running": {"startedAt": at}});
    let mut status = told(pod, "Running", true, "", &state, now);
    status["startTime"] = at.into();
    status["hostIP"] = node_address(pod.node).to_string().into();
    status["hostIPs"] = json!([{"ip": status["hostIP"]}]);
    status["podIP"] = ip.as_str().into();
    status["podIPs"] = json!([{ "ip": ip }]);
    patch(pod, status)
}

/// A patch that says that a pod's containers have ended.
pub fn ended(pod: &Known, well: bool, now: Timestamp) -> Value {
    let (phase, code, reason) = if well { ("Succeeded", 0, "Completed") } else { ("Failed", 143, "Error") };
    let state = json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": now.to_string()}});
    let why = if well { "PodCompleted" } else { "PodFailed" };
    patch(pod, told(pod, phase, false, why, &state, now))
}

/// A pod of another uid has another life.
fn patch(pod: &Known, status: Value) -> Value {
    json!({"metadata": {"uid": pod.uid}, "status": status})
}

fn told(pod: &Known, phase: &str, ready: bool, why: &str, state: &Value, now: Timestamp) -> Value {
    let now = now.to_string();
    let condition = |type_: &str, yes: bool| {
        let mut condition = json!({
            "type": type_, "status": if yes { "True" } else { "False" }, "lastProbeTime": null,
            "lastTransitionTime": now,
        });
        if !yes {
            condition["reason"] = why.into();
        }
        condition
    };
    let containers = pod.containers.iter().map(|(name, image)| {
        json!({
            "name": name, "image": image, "imageID": image, "containerID": format!("hollow://{}/{name}", pod.uid),
            "ready": ready, "started": ready, "restartCount": 0, "lastState": {}, "state": state,
        })
    });
    json!({
        "phase": phase,
        "conditions": [
            condition("PodReadyToStartContainers", ready),
            condition("Initialized", true),
            condition("Ready", ready),
            condition("ContainersReady", ready),
        ],
        "containerStatuses": containers.collect::<Vec<Value>>(),
    })
}
