//! Computes the status of each container as the API shows it.
//!
//! Pure. What the runtime has comes first; what it lost is taken from the status that was pushed before; a container
//! that failed to start, and is to be started again, is waiting with the reason of that failure.

use crate::container_config::is_recursively_read_only;
use crate::host::RuntimeFacts;
use crate::observed::Observed;
use crate::plan::should_restart;
use crate::probe::Verdicts;
use crate::reference::{ContainerKind, ephemeral_containers, init_containers, is_sidecar, spec};
use crate::resize::{Change, change};
use crate::resources::of_container;
use jiff::Timestamp;
use pintle_cri::ContainerState as RuntimeState;
use pintle_types::Time;
use pintle_types::k8s::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, Pod, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use std::collections::HashMap;

/// Why a container could not be started the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// Such as `ErrImagePull`.
    pub reason: String,
    pub message: String,
}

/// By the container's name.
pub type StartFailures = HashMap<String, StartFailure>;

/// What the statuses are computed from.
pub struct Input<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a RuntimeFacts,
    pub observed: &'a Observed,
    /// What was pushed before.
    pub old: &'a PodStatus,
    pub failures: &'a StartFailures,
    pub verdicts: &'a Verdicts,
    /// The pod has ended: nothing will run again.
    pub terminal: bool,
}

/// The statuses of a pod's containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statuses {
    pub init: Vec<ContainerStatus>,
    pub regular: Vec<ContainerStatus>,
    pub ephemeral: Vec<ContainerStatus>,
}

/// Computes all of them; regular ones sorted by name, the others in the order of the spec.
pub fn statuses(input: &Input<'_>) -> Statuses {
    let old = |list: &Option<Vec<ContainerStatus>>, name: &str| list.iter().flatten().find(|s| s.name == name).cloned();
    let init = init_containers(input.pod)
        .iter()
        .map(|c| one(input, ContainerKind::Init, c, old(&input.old.init_container_statuses, &c.name)))
        .collect();
    let mut regular: Vec<_> = spec(input.pod)
        .containers
        .iter()
        .map(|c| one(input, ContainerKind::Regular, c, old(&input.old.container_statuses, &c.name)))
        .collect();
    regular.sort_by(|a, b| a.name.cmp(&b.name));
    let ephemeral = ephemeral_containers(input.pod)
        .iter()
        .map(|(c, _)| one(input, ContainerKind::Ephemeral, c, old(&input.old.ephemeral_container_statuses, &c.name)))
        .collect();
    Statuses { init, regular, ephemeral }
}

fn one(input: &Input<'_>, kind: ContainerKind, container: &Container, old: Option<ContainerStatus>) -> ContainerStatus {
    let newest = input.observed.container(&container.name);
    let mut status = match newest {
        Some(newest) => from_runtime(input, container, newest, old.as_ref()),
        None => from_the_past(input, container, old),
    };
    if let Some(failure) = waiting_reason(input, kind, container) {
        if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            status.last_state = status.state.take();
        }
        status.state = Some(waiting(&failure.reason, &failure.message));
    }
    if kind != ContainerKind::Ephemeral {
        readiness(input, kind, container, newest, &mut status);
    }
    status
}

/// A container that the runtime does not have: not made yet, or lost.
fn from_the_past(input: &Input<'_>, container: &Container, old: Option<ContainerStatus>) -> ContainerStatus {
    let reason = if init_containers(input.pod).is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, "")),
        last_state: Some(ContainerState::default()),
        ..Default::default()
    };
    let Some(old) = old else { return status };
    let state = old.state.clone().unwrap_or_default();
    if state.terminated.is_some() {
        return old;
    }
    status.restart_count = old.restart_count;
    status.last_state = old.last_state;
    if state.running.is_some() {
        let lost = lost_container();
        if input.terminal {
            status.state = Some(lost);
        } else {
            status.last_state = Some(lost);
            status.restart_count += 1;
        }
    }
    status
}

fn lost_container() -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some(
            "The container could not be located when the pod was deleted.  The container used to be Running".into(),
        ),
        ..Default::default()
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

fn from_runtime(
    input: &Input<'_>,
    container: &Container,
    newest: &pintle_cri::ContainerStatus,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let last_state = match input.observed.previous(&container.name) {
        Some(previous) => Some(state_of(&input.runtime.name, previous)),
        // The container before was removed already; what it ended with was pushed.
        None => old.filter(|o| o.restart_count == newest.metadata.attempt as i32).and_then(|o| o.last_state.clone()),
    };
    let running = newest.state == RuntimeState::Running;
    ContainerStatus {
        name: container.name.clone(),
        image: newest.image.clone(),
        image_id: newest.image_ref.clone(),
        container_id: Some(container_id(&input.runtime.name, &newest.id)),
        restart_count: newest.metadata.attempt as i32,
        state: Some(state_of(&input.runtime.name, newest)),
        last_state: Some(last_state.unwrap_or_default()),
        resources: running.then(|| actual_resources(input, container, newest, old)),
        allocated_resources: container.resources.as_ref().filter(|_| running).and_then(|r| r.requests.clone()),
        user: newest.user.as_ref().filter(|_| running).map(user),
        volume_mounts: volume_mounts(container, input.runtime),
        ..Default::default()
    }
}

/// Those that the pod was given, once the container has them; until then those that were told before.
fn actual_resources(
    input: &Input<'_>,
    container: &Container,
    newest: &pintle_cri::ContainerStatus,
    old: Option<&ContainerStatus>,
) -> ResourceRequirements {
    let wanted = of_container(input.pod, container, 1);
    let told = old
        .filter(|o| o.container_id == Some(container_id(&input.runtime.name, &newest.id)))
        .and_then(|o| o.resources.clone());
    match (change(container, newest, &wanted), told) {
        (Change::InPlace | Change::Restart, Some(told)) => told,
        _ => container.resources.clone().unwrap_or_default(),
    }
}

/// The API's name of a container of a runtime.
pub fn container_id(runtime: &str, id: &str) -> String {
    format!("{runtime}://{id}")
}

/// A container's name with its runtime, from the API's name of it.
pub fn id_in_runtime(container_id: &str) -> Option<&str> {
    container_id.split_once("://").map(|(_, id)| id)
}

fn user(user: &pintle_cri::ContainerUser) -> ContainerUser {
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: Some(user.supplemental_groups.clone()),
        }),
    }
}

fn volume_mounts(container: &Container, runtime: &RuntimeFacts) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_deref().filter(|m| !m.is_empty())?;
    let status = |m: &pintle_types::k8s::api::core::v1::VolumeMount| {
        let read_only = m.read_only.filter(|r| *r);
        VolumeMountStatus {
            mount_path: m.mount_path.clone(),
            name: m.name.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| {
                if is_recursively_read_only(m, runtime) == Ok(true) {
                    "Enabled".to_owned()
                } else {
                    "Disabled".to_owned()
                }
            }),
            ..Default::default()
        }
    };
    Some(mounts.iter().map(status).collect())
}

/// A container that the runtime is still making, or that it has lost before it started, has not ended.
fn is_in_the_making(status: &pintle_cri::ContainerStatus) -> bool {
    match status.state {
        RuntimeState::Created => true,
        RuntimeState::Unknown => status.started_at == 0,
        RuntimeState::Running | RuntimeState::Exited => false,
    }
}

fn state_of(runtime: &str, status: &pintle_cri::ContainerStatus) -> ContainerState {
    if is_in_the_making(status) {
        return waiting("ContainerCreating", "");
    }
    match status.state {
        RuntimeState::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(status.started_at) }),
            ..Default::default()
        },
        _ => ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(container_id(runtime, &status.id)),
                exit_code: exit_code(status),
                finished_at: time(status.finished_at),
                message: Some(status.message.clone()).filter(|m| !m.is_empty()),
                reason: Some(exit_reason(status)),
                signal: None,
                started_at: time(status.started_at),
            }),
            ..Default::default()
        },
    }
}

/// How a container that was lost while it ran has ended is not known, but not well.
fn exit_code(status: &pintle_cri::ContainerStatus) -> i32 {
    if status.state == RuntimeState::Unknown && status.exit_code == 0 { 137 } else { status.exit_code }
}

fn exit_reason(status: &pintle_cri::ContainerStatus) -> String {
    match (status.state, status.reason.as_str()) {
        (RuntimeState::Unknown, "") => "ContainerStatusUnknown".into(),
        (_, "") if status.exit_code == 0 => "Completed".into(),
        (_, "") => "Error".into(),
        (_, reason) => reason.to_owned(),
    }
}

/// Whole seconds, as the API has times; nothing for "not yet".
fn time(nanos: i64) -> Option<Time> {
    (nanos > 0).then(|| Timestamp::from_second(nanos / 1_000_000_000).ok()).flatten().map(Time)
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: some(reason), message: some(message) }),
        ..Default::default()
    }
}

/// The failure that keeps a container waiting, when it is to be started (again).
fn waiting_reason<'a>(input: &'a Input<'_>, kind: ContainerKind, container: &Container) -> Option<&'a StartFailure> {
    let failure = input.failures.get(&container.name)?;
    let newest = input.observed.container(&container.name);
    let passed = newest.is_some_and(|s| s.state == RuntimeState::Exited && s.exit_code == 0);
    if input.terminal || (kind == ContainerKind::Init && passed && !is_sidecar(container)) {
        return None;
    }
    should_restart(input.pod, container, newest).then_some(failure)
}

/// Sets `started` and `ready` from the probes.
fn readiness(
    input: &Input<'_>,
    kind: ContainerKind,
    container: &Container,
    newest: Option<&pintle_cri::ContainerStatus>,
    status: &mut ContainerStatus,
) {
    let state = status.state.clone().unwrap_or_default();
    let running = newest.filter(|_| state.running.is_some());
    let verdict = running.map(|r| input.verdicts.of(&r.id)).unwrap_or_default();
    let started = running.is_some() && (container.startup_probe.is_none() || verdict.startup == Some(true));
    status.started = Some(started);
    status.ready = if kind == ContainerKind::Init && !is_sidecar(container) {
        state.terminated.is_some_and(|t| t.exit_code == 0)
    } else {
        started && (container.readiness_probe.is_none() || verdict.readiness == Some(true))
    };
}
