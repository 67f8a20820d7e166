//! Turns requests and limits into what the kernel takes, and says how a pod ranks when memory runs out.
//!
//! Source: `pkg/kubelet/cm` (shares, quota), `pkg/kubelet/qos` (scores), `pkg/apis/core/v1/helper/qos` (classes).

use crate::huge_pages;
use crate::reference::{init_containers, spec};
use pintle_cri::LinuxContainerResources;
use pintle_types::k8s::api::core::v1::{Container, Pod, ResourceRequirements};
use pintle_types::k8s::apimachinery::pkg::api::resource::Quantity as Text;
use pintle_types::quantity::Quantity;
use std::collections::BTreeMap;

/// The rank of a pod when resources run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

pub const CPU_PERIOD_MICROSECONDS: i64 = 100_000;
/// Says that there is no limit to processor time, where zero says nothing.
pub const NO_QUOTA: i64 = -1;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA_MICROSECONDS: i64 = 1_000;

fn amount(list: Option<&BTreeMap<String, Text>>, name: &str) -> Option<Quantity> {
    list?.get(name).map(Quantity::from)
}

/// A container's request; its limit stands for one that is not there.
pub fn request(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    let resources = resources?;
    amount(resources.requests.as_ref(), name).or_else(|| amount(resources.limits.as_ref(), name))
}

pub fn limit(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    amount(resources?.limits.as_ref(), name)
}

/// The class of a pod. Only cpu and memory count.
pub fn qos_class(pod: &Pod) -> Qos {
    let pod_level = spec(pod).resources.as_ref();
    let containers = init_containers(pod).iter().chain(&spec(pod).containers).map(|c| c.resources.as_ref());
    let all: Vec<Option<&ResourceRequirements>> = match pod_level {
        Some(resources) => vec![Some(resources)],
        None => containers.collect(),
    };
    let set = |r: &Option<&ResourceRequirements>, name| {
        let there = |q: Option<Quantity>| q.is_some_and(|q| !q.is_zero());
        there(r.and_then(|r| amount(r.requests.as_ref(), name))) || there(limit(*r, name))
    };
    if !all.iter().any(|r| set(r, "cpu") || set(r, "memory")) {
        return Qos::BestEffort;
    }
    let exact = |r: &Option<&ResourceRequirements>, name| {
        limit(*r, name).is_some_and(|l| !l.is_zero() && request(*r, name) == Some(l))
    };
    if all.iter().all(|r| exact(r, "cpu") && exact(r, "memory")) { Qos::Guaranteed } else { Qos::Burstable }
}

/// The weight of a cgroup whose containers ask for so many thousandths of a processor.
pub fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 {
        0
    } else {
        (milli_cpu.saturating_mul(CPU_PERIOD_MICROSECONDS) / 1000).max(MIN_QUOTA_MICROSECONDS)
    }
}

/// What a container gets. `machine_memory` in bytes.
pub fn of_container(pod: &Pod, container: &Container, machine_memory: u64) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let cpu_limit = limit(resources, "cpu").map_or(0, |q| q.milli());
    let memory_limit = limit(resources, "memory").map_or(0, |q| q.units());
    LinuxContainerResources {
        cpu_period: if cpu_limit > 0 { CPU_PERIOD_MICROSECONDS } else { 0 },
        cpu_quota: quota(cpu_limit),
        cpu_shares: shares(request(resources, "cpu").map_or(0, |q| q.milli())),
        memory_limit_in_bytes: memory_limit,
        // No swap for containers: the same limit for memory and memory with swap.
        memory_swap_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score(pod, container, machine_memory),
        hugepage_limits: huge_pages::of_container(pod, container),
        ..Default::default()
    }
}

/// How soon the kernel kills a container when the machine runs out of memory.
fn oom_score(pod: &Pod, container: &Container, machine_memory: u64) -> i64 {
    if spec(pod).priority.is_some_and(|p| p >= 2_000_000_000) {
        return -997;
    }
    match qos_class(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let requested = request(container.resources.as_ref(), "memory").map_or(0, |q| q.units());
            let capacity = i64::try_from(machine_memory).unwrap_or(i64::MAX).max(1);
            let share = (i128::from(requested) * 1000 / i128::from(capacity)) as i64;
            (1000 - share).clamp(3, 999)
        }
    }
}

/// The sum over a pod's containers, for its own cgroup: a limit only when every container has one.
pub fn of_pod(pod: &Pod) -> LinuxContainerResources {
    let milli_request = total_with_overhead(pod, "cpu").milli();
    // Overhead widens limits; where there is none, it makes none.
    let overhead = |name| amount(spec(pod).overhead.as_ref(), name).unwrap_or(Quantity::ZERO);
    let cpu_limit = complete(pod, "cpu").map_or(0, |q| (q + overhead("cpu")).milli());
    let memory_limit = complete(pod, "memory").map_or(0, |q| (q + overhead("memory")).units());
    LinuxContainerResources {
        cpu_shares: shares(milli_request),
        cpu_period: if cpu_limit > 0 { CPU_PERIOD_MICROSECONDS } else { 0 },
        cpu_quota: quota(cpu_limit),
        memory_limit_in_bytes: memory_limit,
        hugepage_limits: huge_pages::of_pod(pod, |name| total(pod, |r| request(r, name))),
        ..Default::default()
    }
}

/// What a pod asks for of a resource, with what its runtime class adds: thousandths of processors, whole units of all
/// else. Each is one of `pods`.
pub fn pod_request(pod: &Pod, name: &str) -> u64 {
    match name {
        "pods" => 1,
        "cpu" => milli_cpu_request(pod),
        _ => u64::try_from(total_with_overhead(pod, name).units()).unwrap_or(0),
    }
}

/// Bytes that a pod asks for, with what its runtime class adds.
pub fn memory_request(pod: &Pod) -> u64 {
    pod_request(pod, "memory")
}

/// Thousandths of a processor that a pod asks for, with what its runtime class adds.
pub fn milli_cpu_request(pod: &Pod) -> u64 {
    u64::try_from(total_with_overhead(pod, "cpu").milli()).unwrap_or(0)
}

fn total_with_overhead(pod: &Pod, name: &str) -> Quantity {
    let asked = total(pod, |r| request(r, name)).unwrap_or(Quantity::ZERO);
    asked + amount(spec(pod).overhead.as_ref(), name).unwrap_or(Quantity::ZERO)
}

/// Regular containers and sidecars together, or the largest init container (beside the sidecars before it), whichever is more.
fn total(pod: &Pod, amount: impl Fn(Option<&ResourceRequirements>) -> Option<Quantity>) -> Option<Quantity> {
    if let Some(whole) = spec(pod).resources.as_ref().and_then(|r| amount(Some(r))) {
        return Some(whole);
    }
    let of = |c: &Container| amount(c.resources.as_ref()).unwrap_or(Quantity::ZERO);
    let mut sum = spec(pod).containers.iter().map(of).fold(Quantity::ZERO, |a, b| a + b);
    let (mut sidecars, mut largest) = (Quantity::ZERO, Quantity::ZERO);
    for container in init_containers(pod) {
        if crate::reference::is_sidecar(container) {
            sidecars = sidecars + of(container);
            largest = largest.max(sidecars);
        } else {
            largest = largest.max(sidecars + of(container));
        }
    }
    sum = sum + sidecars;
    Some(sum.max(largest)).filter(|q| !q.is_zero())
}

fn complete(pod: &Pod, name: &str) -> Option<Quantity> {
    let missing = |c: &Container| limit(c.resources.as_ref(), name).is_none();
    let pod_level = limit(spec(pod).resources.as_ref(), name).is_some();
    if !pod_level && init_containers(pod).iter().chain(&spec(pod).containers).any(missing) {
        return None;
    }
    total(pod, |r| limit(r, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use serde_json::json;

    fn container(resources: serde_json::Value) -> Pod {
        pod(json!({"containers": [{"name": "a", "resources": resources}]}))
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        for (resources, class) in [
            (json!({}), Qos::BestEffort),
            (json!({"requests": {"cpu": "0"}}), Qos::BestEffort),
            (json!({"requests": {"cpu": "1"}}), Qos::Burstable),
            (json!({"limits": {"memory": "1Gi"}}), Qos::Burstable),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), Qos::Guaranteed),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), Qos::Burstable),
        ] {
            assert_eq!(qos_class(&container(resources.clone())), class, "{resources}");
        }
    }

    #[test]
    fn a_container_gets_shares_quota_and_score() {
        let pod = container(json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1500m"}}));
        let got = of_container(&pod, &spec(&pod).containers[0], 4 << 30);
        assert_eq!((got.cpu_shares, got.cpu_quota, got.cpu_period), (256, 150_000, 100_000));
        assert_eq!((got.memory_limit_in_bytes, got.oom_score_adj), (0, 750));
        let none = container(json!({}));
        let got = of_container(&none, &spec(&none).containers[0], 4 << 30);
        assert_eq!((got.cpu_shares, got.cpu_quota, got.oom_score_adj), (2, 0, 1000));
    }

    #[test]
    fn a_pod_has_a_limit_only_when_all_its_containers_have() {
        let limited = pod(json!({"containers": [
            {"name": "a", "resources": {"limits": {"memory": "1Gi"}}},
            {"name": "b", "resources": {"limits": {"memory": "2Gi"}}}]}));
        assert_eq!(of_pod(&limited).memory_limit_in_bytes, 3 << 30);
        let open = pod(json!({"containers": [
            {"name": "a", "resources": {"limits": {"memory": "1Gi"}}}, {"name": "b"}]}));
        assert_eq!(of_pod(&open).memory_limit_in_bytes, 0);
    }
}
