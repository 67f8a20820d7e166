//! Resizes pods in place: which resources a pod has been given, whether the node can give it others, and what its
//! containers must be told.
//!
//! A pod runs with what it was allocated; a wish for more waits until the node has it (Deferred), or for ever
//! (Infeasible). What was allocated is found again after a restart in the pod's status.

use crate::reference::{lasting_containers, spec};
use crate::resources::{CPU_PERIOD_MICROSECONDS, memory_request, milli_cpu_request};
use parking_lot::Mutex;
use pintle_cri::{ContainerStatus, LinuxContainerResources};
use pintle_placement::CpuSet;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod, PodStatus, ResourceRequirements};
use std::collections::HashMap;

/// Why a pod does not have the resources that it wishes for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    pub message: String,
}

/// What the pods of a node have been given: thousandths of a processor, and bytes.
pub struct Allocations {
    milli_cpu: u64,
    memory_bytes: u64,
    pods: Mutex<HashMap<String, [u64; 2]>>,
}

impl Allocations {
    /// Of a node of this size.
    pub fn new(milli_cpu: u64, memory_bytes: u64) -> Self {
        Self { milli_cpu, memory_bytes, pods: Mutex::default() }
    }

    /// Notes what a pod has, whether it fits or not.
    pub fn note(&self, pod: &Pod) {
        self.pods.lock().insert(pod.uid().to_owned(), requests(pod));
    }

    pub fn forget(&self, uid: &str) {
        self.pods.lock().remove(uid);
    }

    /// Gives a pod what it wishes for, or says why not.
    fn grow(&self, pod: &Pod, before: &Pod) -> Result<(), Pending> {
        let (wanted, had) = (requests(pod), requests(before));
        let mut pods = self.pods.lock();
        for (i, (name, capacity)) in [("cpu", self.milli_cpu), ("memory", self.memory_bytes)].into_iter().enumerate() {
            let requested = wanted[i];
            if requested > capacity {
                let message =
                    format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
                return Err(Pending { reason: "Infeasible", message });
            }
            let used: u64 = pods.iter().filter(|(uid, _)| *uid != pod.uid()).map(|(_, of)| of[i]).sum();
            if requested > had[i] && requested + used > capacity {
                let message = format!(
                    "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
                );
                return Err(Pending { reason: "Deferred", message });
            }
        }
        pods.insert(pod.uid().to_owned(), wanted);
        Ok(())
    }
}

fn requests(pod: &Pod) -> [u64; 2] {
    [milli_cpu_request(pod), memory_request(pod)]
}

/// The pod as it is to run: with its own resources if it gets them, else with those that it had.
pub fn allocate(pod: &Pod, before: &Pod, allocations: &Allocations) -> (Option<Pod>, Option<Pending>) {
    if !differs(pod, before) {
        return (None, None);
    }
    if crate::static_pods::is_static(pod) {
        let message = "In-place resize of static-pods is not supported".to_owned();
        return (Some(with_resources_of(pod, before)), Some(Pending { reason: "Infeasible", message }));
    }
    match allocations.grow(pod, before) {
        Ok(()) => (None, None),
        Err(pending) => (Some(with_resources_of(pod, before)), Some(pending)),
    }
}

fn differs(a: &Pod, b: &Pod) -> bool {
    spec(a).resources != spec(b).resources
        || lasting_containers(a).any(|(_, c)| found(b, c).is_some_and(|other| other.resources != c.resources))
}

fn found<'a>(pod: &'a Pod, container: &Container) -> Option<&'a Container> {
    lasting_containers(pod).find(|(_, other)| other.name == container.name).map(|(_, other)| other)
}

fn with_resources_of(pod: &Pod, before: &Pod) -> Pod {
    let mut out = pod.clone();
    let Some(spec) = &mut out.spec else { return out };
    spec.resources = before.spec.as_ref().and_then(|s| s.resources.clone());
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(other) = found(before, container) {
            container.resources = other.resources.clone();
        }
    }
    out
}

/// The pod as its status says that it was allocated, after a restart of the kubelet.
pub fn restored(pod: &Pod, status: &PodStatus) -> Pod {
    let mut out = pod.clone();
    let Some(spec) = &mut out.spec else { return out };
    let all = [&status.container_statuses, &status.init_container_statuses];
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let known = all.iter().flat_map(|list| list.iter().flatten()).find(|s| s.name == container.name);
        let Some((requests, actual)) =
            known.and_then(|s| Some((s.allocated_resources.as_ref()?, s.resources.as_ref()?)))
        else {
            continue;
        };
        if container.resources.as_ref().and_then(|r| r.requests.as_ref()) != Some(requests) {
            let limits = actual.limits.clone();
            container.resources = Some(ResourceRequirements { requests: Some(requests.clone()), limits, claims: None });
        }
    }
    out
}

/// What a running container must be told, and whether its policy wants a restart for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    InPlace,
    Restart,
}

/// Compares what a running container has with what it is to have.
pub fn change(container: &Container, status: &ContainerStatus, wanted: &LinuxContainerResources) -> Change {
    let actual = &status.resources;
    // A runtime that does not tell what a container has can't be asked to change it.
    if actual.cpu_shares <= 0 {
        return Change::None;
    }
    let limit = |n: i64| n.max(0);
    let quota = limit(actual.cpu_quota) != limit(wanted.cpu_quota) && !has_all_of_its_cpus(actual, wanted);
    let cpu = actual.cpu_shares != wanted.cpu_shares || quota;
    let memory = limit(actual.memory_limit_in_bytes) != limit(wanted.memory_limit_in_bytes);
    let restarts = |name: &str| {
        let policies = container.resize_policy.iter().flatten();
        policies.into_iter().any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
    };
    match (cpu, memory) {
        (false, false) => Change::None,
        _ if (cpu && restarts("cpu")) || (memory && restarts("memory")) => Change::Restart,
        _ => Change::InPlace,
    }
}

/// Whether a container has no quota because it may use all of the processors that it has for itself.
fn has_all_of_its_cpus(actual: &LinuxContainerResources, wanted: &LinuxContainerResources) -> bool {
    let own = || actual.cpuset_cpus.parse::<CpuSet>().ok().and_then(|cpus| i64::try_from(cpus.len()).ok());
    actual.cpu_quota < 0 && own().is_some_and(|count| count * CPU_PERIOD_MICROSECONDS == wanted.cpu_quota)
}

/// What the runtime is told: a limit that is gone is said to be none, as zero leaves things as they are.
pub fn update(actual: &LinuxContainerResources, wanted: &LinuxContainerResources) -> LinuxContainerResources {
    let or_none = |before: i64, now: i64| if now == 0 && before > 0 { -1 } else { now };
    LinuxContainerResources {
        cpu_period: wanted.cpu_period,
        cpu_quota: or_none(actual.cpu_quota, wanted.cpu_quota),
        cpu_shares: wanted.cpu_shares,
        memory_limit_in_bytes: or_none(actual.memory_limit_in_bytes, wanted.memory_limit_in_bytes),
        memory_swap_limit_in_bytes: or_none(actual.memory_swap_limit_in_bytes, wanted.memory_swap_limit_in_bytes),
        oom_score_adj: wanted.oom_score_adj,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::{named, pod};
    use crate::resources::of_container;
    use serde_json::json;

    fn sized(cpu: &str) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    #[test]
    fn wishes_are_granted_deferred_or_infeasible() {
        let allocations = Allocations::new(2000, 1 << 30);
        allocations.note(&named(
            "o",
            "o",
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}),
        ));
        let before = sized("500m");
        for (wish, reason) in [("1", None), ("1500m", Some("Deferred")), ("3", Some("Infeasible")), ("100m", None)] {
            let (kept, pending) = allocate(&sized(wish), &before, &allocations);
            assert_eq!(pending.as_ref().map(|p| p.reason), reason, "{wish}");
            assert_eq!(kept.is_some(), reason.is_some());
            if let Some(kept) = kept {
                assert_eq!(milli_cpu_request(&kept), 500);
            }
        }
        let (_, pending) = allocate(&sized("1500m"), &before, &allocations);
        let message = "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000";
        assert_eq!(pending.unwrap().message, message);
    }

    #[test]
    fn a_policy_may_want_a_restart() {
        let pod = pod(json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}]}));
        let container = &spec(&pod).containers[0];
        let wanted = of_container(&pod, container, 4 << 30);
        let mut status = ContainerStatus { resources: wanted.clone(), ..Default::default() };
        assert_eq!(change(container, &status, &wanted), Change::None);
        status.resources.cpu_quota = -1;
        status.resources.cpuset_cpus = "3".into();
        assert_eq!(change(container, &status, &wanted), Change::None, "it has a processor of its own");
        status.resources.cpuset_cpus = "3-4".into();
        assert_eq!(change(container, &status, &wanted), Change::InPlace);
        status.resources.cpu_quota = 1;
        assert_eq!(change(container, &status, &wanted), Change::InPlace);
        status.resources.memory_limit_in_bytes = 1;
        assert_eq!(change(container, &status, &wanted), Change::Restart);
        let open = LinuxContainerResources { cpu_shares: 2, ..Default::default() };
        assert_eq!(update(&status.resources, &open).memory_limit_in_bytes, -1);
    }

    #[test]
    fn what_was_allocated_is_found_in_the_status() {
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [{"name": "c", "image": "",
            "imageID": "", "ready": true, "restartCount": 0, "allocatedResources": {"cpu": "500m"},
            "resources": {"requests": {"cpu": "500m"}}}]}))
        .unwrap();
        assert_eq!(milli_cpu_request(&restored(&sized("3"), &status)), 500);
        assert_eq!(restored(&sized("500m"), &status), sized("500m"));
    }
}
