//! Says which pod goes first, and in which words. Pure.

use super::thresholds::{Crossed, Signal, bytes_text};
use crate::reference::{lasting_containers, spec};
use crate::static_pods::{is_mirror, is_static};
use crate::stats::PodUse;
use pintle_types::k8s::api::core::v1::{Container, Pod};
use pintle_types::quantity::Quantity;
use std::cmp::Reverse;

/// `system-cluster-critical` and above are never evicted.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Whether a pod is one that the node itself needs.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || is_mirror(pod) || spec(pod).priority.is_some_and(|p| p >= CRITICAL_PRIORITY)
}

/// What a container asked for, in whole units.
fn requested(container: &Container, resource: &str) -> u64 {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let amount = requests.and_then(|r| r.get(resource)).map(|q| Quantity::from(q).units());
    amount.and_then(|units| u64::try_from(units).ok()).unwrap_or(0)
}

fn pod_requested(pod: &Pod, resource: &str) -> u64 {
    lasting_containers(pod)
        .filter(|(_, c)| c.restart_policy.is_some() || is_regular(pod, c))
        .map(|(_, c)| requested(c, resource))
        .sum()
}

fn is_regular(pod: &Pod, container: &Container) -> bool {
    spec(pod).containers.iter().any(|c| c.name == container.name)
}

/// What a pod uses of the resource behind a signal.
pub fn used(signal: Signal, pod: &PodUse) -> u64 {
    match signal {
        Signal::Memory => pod.usage.working_set,
        Signal::NodeFs | Signal::ImageFs => pod.ephemeral().bytes,
        Signal::NodeFsInodes | Signal::ImageFsInodes => pod.ephemeral().inodes,
        Signal::Pids => pod.usage.processes,
    }
}

/// The pods that may go, the first one first: those above their requests, then by priority, then by what is above.
pub fn victims<'a>(signal: Signal, pods: &[(&'a Pod, &'a PodUse)]) -> Vec<(&'a Pod, &'a PodUse)> {
    let mut list: Vec<_> = pods.iter().copied().filter(|(pod, _)| !is_critical(pod)).collect();
    list.sort_by_key(|(pod, usage)| {
        let used = used(signal, usage);
        let requested = if signal == Signal::Pids { 0 } else { pod_requested(pod, signal.resource()) };
        let within = signal != Signal::Pids && used <= requested;
        (within, spec(pod).priority.unwrap_or(0), Reverse(i128::from(used) - i128::from(requested)))
    });
    list
}

/// Upstream's message to the pod that goes.
pub fn message(crossed: &Crossed, pod: &Pod, usage: &PodUse) -> String {
    let resource = crossed.signal.resource();
    let mut text = format!("The node was low on resource: {resource}. {}", crossed.text());
    let container_use = |c: &crate::stats::ContainerUse| match crossed.signal {
        Signal::Memory => Some(c.usage.working_set),
        Signal::NodeFs | Signal::ImageFs => Some(c.root.bytes + c.log.bytes),
        _ => None,
    };
    for container in &usage.containers {
        let Some(used) = container_use(container) else { continue };
        let Some((_, spec)) = lasting_containers(pod).find(|(_, c)| c.name == container.name) else { continue };
        let request = requested(spec, resource);
        if used > request {
            let request = if request == 0 { "0".into() } else { bytes_text(request) };
            text += &format!(
                "Container {} was using {}, request is {request}, has larger consumption of {resource}. ",
                container.name,
                bytes_text(used)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::named;
    use crate::stats::{ContainerUse, Usage};
    use serde_json::json;

    fn a_pod(name: &str, request: &str, priority: i32, used: u64) -> (Pod, PodUse) {
        let pod = named(
            name,
            name,
            json!({"priority": priority, "containers": [
            {"name": "c", "resources": {"requests": {"memory": request}}}]}),
        );
        let usage = Usage { working_set: used, ..Default::default() };
        let container = ContainerUse { name: "c".into(), usage, ..Default::default() };
        (pod, PodUse { name: name.into(), usage, containers: vec![container], ..Default::default() })
    }

    #[test]
    fn pods_above_their_requests_go_first_then_low_priorities_then_the_largest() {
        let all = [
            a_pod("within", "100Mi", -5, 50 << 20),
            a_pod("important", "0", 100, 500 << 20),
            a_pod("small", "0", 0, 1 << 20),
            a_pod("large", "10Mi", 0, 90 << 20),
            a_pod("critical", "0", 2_000_000_000, 900 << 20),
        ];
        let list: Vec<(&Pod, &PodUse)> = all.iter().map(|(p, u)| (p, u)).collect();
        let order: Vec<&str> = victims(Signal::Memory, &list).iter().map(|(_, u)| u.name.as_str()).collect();
        assert_eq!(order, ["large", "small", "important", "within"]);
    }

    #[test]
    fn the_message_names_who_used_more_than_it_asked_for() {
        let (pod, usage) = a_pod("p", "10Mi", 0, 90 << 20);
        let crossed = Crossed { signal: Signal::Memory, least: 100 << 20, available: 51300 << 10, is_hard: true };
        assert_eq!(
            message(&crossed, &pod, &usage),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51300Ki. Container c was \
             using 90Mi, request is 10Mi, has larger consumption of memory. "
        );
    }
}
