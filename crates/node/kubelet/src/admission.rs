//! Says whether this node takes a pod that was bound to it, as upstream's kubelet checks it once more. Pure.

use crate::eviction::is_critical;
use crate::reference::{lasting_containers, spec};
use crate::resources::{Qos, memory_request, milli_cpu_request, qos_class};
use crate::status::Ended;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;

/// What the node has, and what is on it.
pub struct Node<'a> {
    pub milli_cpu: u64,
    pub memory_bytes: u64,
    pub max_pods: usize,
    pub pressures: &'a [&'static str],
    pub unsafe_sysctls: &'a [String],
    /// The machine is about to end.
    pub is_ending: bool,
    /// The other pods here that have not ended.
    pub others: &'a [&'a Pod],
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

/// Why a pod is refused, if it is.
pub fn refusal(pod: &Pod, node: &Node<'_>) -> Option<Ended> {
    pressure(pod, node)
        .or_else(|| sysctls(pod, node))
        .or_else(|| fits(pod, node))
        .or_else(|| ports(pod, node))
        .or_else(|| if node.is_ending { refuse("NodeShutdown", ENDING) } else { None })
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

fn fits(pod: &Pod, node: &Node<'_>) -> Option<Ended> {
    if node.others.len() + 1 > node.max_pods {
        let (used, capacity) = (node.others.len(), node.max_pods);
        let message =
            format!("Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {capacity}");
        return refuse("OutOfpods", message);
    }
    let sum = |of: fn(&Pod) -> u64| node.others.iter().map(|other| of(other)).sum::<u64>();
    let checks =
        [("cpu", milli_cpu_request as fn(&Pod) -> u64, node.milli_cpu), ("memory", memory_request, node.memory_bytes)];
    for (name, of, capacity) in checks {
        let (requested, used) = (of(pod), sum(of));
        if requested > 0 && requested + used > capacity {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return refuse(&format!("OutOf{name}"), message);
        }
    }
    None
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
    let taken = node.others.iter().flat_map(|other| host_ports(other));
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

    fn check(spec: Value, pressures: &[&'static str], expected: Option<(&str, &str)>) {
        let other = named(
            "o",
            "o",
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}],
            "resources": {"requests": {"cpu": "1500m"}}}]}),
        );
        let node = Node {
            milli_cpu: 2000,
            memory_bytes: 1 << 30,
            max_pods: 110,
            pressures,
            unsafe_sysctls: &["kernel.msg*".to_owned()],
            is_ending: false,
            others: &[&other],
        };
        let got = refusal(&pod(spec.clone()), &node);
        let got = got.as_ref().map(|e| (e.reason.as_str(), e.message.as_str()));
        assert_eq!(got, expected, "{spec}");
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
        check(with_sysctl("net.ipv4.tcp_syncookies"), &[], None);
        check(with_sysctl("kernel.msgmax"), &[], None);
        let forbidden = "forbidden sysctl: \"kernel.sem\" not allowlisted";
        check(with_sysctl("kernel.sem"), &[], Some(("SysctlForbidden", forbidden)));
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
