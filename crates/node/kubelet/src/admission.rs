//! Says whether this node takes a pod that was bound to it, as upstream's kubelet checks it once more. Pure.

use crate::eviction::is_critical;
use crate::huge_pages;
use crate::preemption::{Shortage, Victims};
use crate::reference::{lasting_containers, spec};
use crate::resources::{Qos, pod_request, qos_class};
use crate::status::Ended;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the node has for pods, and what is on it.
pub struct Node<'a> {
    /// By name: thousandths of processors, whole units of all else. What is not there is not to be had.
    pub allocatable: &'a BTreeMap<String, u64>,
    pub pressures: &'a [&'static str],
    pub unsafe_sysctls: &'a [String],
    /// The machine is about to end.
    pub is_ending: bool,
    /// The other pods here that have not ended.
    pub others: &'a [Arc<Pod>],
}

/// Sysctls that pods may set: they are of a namespace and harm nobody else.
const SAFE_SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

const ENDING: &str = "Pod was rejected as the node is shutting down.";

/// Takes a pod, in the place of those that are returned, or says why not.
pub fn admit(pod: &Pod, node: &Node<'_>) -> Result<Victims, Ended> {
    let short = shortages(pod, node);
    let refused = pressure(pod, node)
        .or_else(|| sysctls(pod, node))
        .or_else(|| short.first().filter(|_| !is_critical(pod)).map(Shortage::refusal))
        .or_else(|| ports(pod, node))
        .or_else(|| if node.is_ending { refuse("NodeShutdown", ENDING) } else { None });
    match refused {
        Some(refused) => Err(refused),
        None => Victims::of(pod, node.others, &short),
    }
}

fn refuse(reason: &str, message: impl Into<String>) -> Option<Ended> {
    Some(Ended { reason: reason.to_owned(), message: message.into() })
}

fn pressure(pod: &Pod, node: &Node<'_>) -> Option<Ended> {
    if node.pressures.is_empty() || is_critical(pod) {
        return None;
    }
    if node.pressures == ["MemoryPressure"] {
        let tolerates = |t: &pintle_types::k8s::api::core::v1::Toleration| {
            t.key.as_deref() == Some("node.kubernetes.io/memory-pressure")
                && t.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoSchedule")
        };
        if qos_class(pod) != Qos::BestEffort || spec(pod).tolerations.iter().flatten().any(tolerates) {
            return None;
        }
    }
    refuse("Evicted", format!("The node had condition: [{}]. ", node.pressures.join(" ")))
}

fn sysctls(pod: &Pod, node: &Node<'_>) -> Option<Ended> {
    let wanted = spec(pod).security_context.as_ref()?.sysctls.as_ref()?;
    for sysctl in wanted {
        let name = sysctl.name.replace('/', ".");
        let listed = |pattern: &str| pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start));
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !node.unsafe_sysctls.iter().any(|p| listed(p)) {
            return refuse("SysctlForbidden", format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        let host = |shared: Option<bool>| shared == Some(true);
        let (space, shared) = if name.starts_with("net.") {
            ("network", host(spec(pod).host_network))
        } else {
            ("ipc", host(spec(pod).host_ipc))
        };
        if shared {
            let name = &sysctl.name;
            let message = format!("forbidden sysctl: {name:?} not allowed with host {space} enabled");
            return refuse("SysctlForbidden", message);
        }
    }
    None
}

/// What the node lacks for a pod, in the order in which it is told.
fn shortages(pod: &Pod, node: &Node<'_>) -> Vec<Shortage> {
    let usual = ["pods", "cpu", "memory", "ephemeral-storage"].map(str::to_owned);
    let shortage = |resource: String| {
        let requested = pod_request(pod, &resource);
        if requested == 0 {
            return None;
        }
        let used = node.others.iter().map(|other| pod_request(other, &resource)).sum();
        let capacity = node.allocatable.get(&resource).copied().unwrap_or(0);
        (requested + used > capacity).then_some(Shortage { resource, requested, used, capacity })
    };
    usual.into_iter().chain(huge_pages::asked(pod)).filter_map(shortage).collect()
}

fn host_ports(pod: &Pod) -> Vec<(i32, &str, &str)> {
    let ports = lasting_containers(pod).flat_map(|(_, c)| c.ports.iter().flatten());
    ports
        .filter_map(|p| Some((p.host_port.filter(|n| *n > 0)?, p.protocol.as_deref(), p.host_ip.as_deref())))
        .map(|(port, protocol, ip)| (port, protocol.unwrap_or("TCP"), ip.unwrap_or_default()))
        .collect()
}

fn ports(pod: &Pod, node: &Node<'_>) -> Option<Ended> {
    let wanted = host_ports(pod);
    if wanted.is_empty() {
        return None;
    }
    let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    let clash =
        |a: &(i32, &str, &str), b: &(i32, &str, &str)| a.0 == b.0 && a.1 == b.1 && (a.2 == b.2 || any(a.2) || any(b.2));
    let taken = node.others.iter().flat_map(|other| host_ports(other.as_ref()));
    let taken: Vec<_> = taken.collect();
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    if wanted.iter().any(|w| taken.iter().any(|t| clash(w, t))) { refuse("NodePorts", message) } else { None }
}

/// Whether a pod has been here before: then it was admitted, and stays so.
pub fn is_new(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    !pod.is_deleting() && status.is_none_or(|s| s.start_time.is_none() && !crate::status::is_final(s.phase.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::{named, pod};
    use serde_json::{Value, json};

    /// What a node says that has 2 processors, 4 MiB of huge pages and another pod.
    fn admitted(spec: &Value, pressures: &[&'static str]) -> Result<Victims, Ended> {
        let other = named(
            "o",
            "o",
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}],
            "resources": {"requests": {"cpu": "1500m"}}}]}),
        );
        let amounts = [("pods", 110), ("cpu", 2000), ("memory", 1 << 30), ("hugepages-2Mi", 4 << 20)];
        let node = Node {
            allocatable: &amounts.map(|(name, amount)| (name.to_owned(), amount)).into(),
            pressures,
            unsafe_sysctls: &["kernel.msg*".to_owned()],
            is_ending: false,
            others: &[Arc::new(other)],
        };
        admit(&pod(spec.clone()), &node)
    }

    fn check(spec: Value, pressures: &[&'static str], expected: Option<(&str, &str)>) {
        let refused = admitted(&spec, pressures).err();
        assert_eq!(refused.as_ref().map(|e| (e.reason.as_str(), e.message.as_str())), expected, "{spec}");
    }

    fn with_sysctl(name: &str) -> Value {
        json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}, "containers": [{"name": "c"}]})
    }

    #[test]
    fn pods_are_refused_in_upstreams_words() {
        let with = |resources: Value, port: i32| {
            json!({"containers": [{"name": "c", "resources": resources,
                "ports": [{"containerPort": 1, "hostPort": port}]}]})
        };
        check(with(json!({}), 81), &[], None);
        let taken = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        check(with(json!({}), 80), &[], Some(("NodePorts", taken)));
        let full = "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000";
        check(with(json!({"requests": {"cpu": "600m"}}), 81), &[], Some(("OutOfcpu", full)));
        let disk = "Node didn't have enough resource: ephemeral-storage, requested: 1, used: 0, capacity: 0";
        check(with(json!({"requests": {"ephemeral-storage": "1"}}), 81), &[], Some(("OutOfephemeral-storage", disk)));
        let huge = |size: &str, amount: &str| json!({"limits": {format!("hugepages-{size}"): amount, "cpu": "1m"}});
        check(with(huge("2Mi", "4Mi"), 81), &[], None);
        let pages = "Node didn't have enough resource: hugepages-2Mi, requested: 6291456, used: 0, capacity: 4194304";
        check(with(huge("2Mi", "6Mi"), 81), &[], Some(("OutOfhugepages-2Mi", pages)));
        let pages = "Node didn't have enough resource: hugepages-1Gi, requested: 1073741824, used: 0, capacity: 0";
        check(with(huge("1Gi", "1Gi"), 81), &[], Some(("OutOfhugepages-1Gi", pages)));
        check(with_sysctl("net.ipv4.tcp_syncookies"), &[], None);
        check(with_sysctl("kernel.msgmax"), &[], None);
        let forbidden = "forbidden sysctl: \"kernel.sem\" not allowlisted";
        check(with_sysctl("kernel.sem"), &[], Some(("SysctlForbidden", forbidden)));
    }

    #[test]
    fn critical_pods_are_refused_for_all_but_want_of_room() {
        let critical = |cpu: &str, port: i32| {
            json!({"priority": 2_000_000_000, "containers": [{"name": "c",
                "resources": {"requests": {"cpu": cpu}}, "ports": [{"containerPort": 1, "hostPort": port}]}]})
        };
        for (cpu, victims) in [("500m", 0), ("501m", 1), ("2", 1)] {
            let admitted = admitted(&critical(cpu, 81), &[]).unwrap();
            assert_eq!(admitted.pods.len(), victims, "{cpu}");
        }
        let taken = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        check(critical("501m", 80), &[], Some(("NodePorts", taken)));
        let error = "Unexpected error while attempting to recover from admission failure: preemption: error finding a \
                     set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 100), ]";
        check(critical("2100m", 81), &[], Some(("UnexpectedAdmissionError", error)));
    }

    #[test]
    fn a_node_under_pressure_takes_few_pods() {
        let effort = json!({"containers": [{"name": "c"}]});
        let asked = json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]});
        let critical = json!({"priority": 2_000_000_000, "containers": [{"name": "c"}]});
        let memory = "The node had condition: [MemoryPressure]. ";
        check(effort, &["MemoryPressure"], Some(("Evicted", memory)));
        check(asked.clone(), &["MemoryPressure"], None);
        check(asked, &["DiskPressure"], Some(("Evicted", "The node had condition: [DiskPressure]. ")));
        check(critical, &["DiskPressure"], None);
    }
}
