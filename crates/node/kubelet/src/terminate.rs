//! Stops containers and pods: hook before the stop, grace periods, sidecars after the others in reverse order.

use crate::lifecycle;
use crate::memory::Memory;
use crate::observed::Observed;
use crate::plan::KillReason;
use crate::reference::{ContainerKind, init_containers, is_sidecar, lasting_containers, own_grace};
use futures::future::join_all;
use pintle_cri::{ContainerState, ContainerStatus, CriError};
use pintle_types::k8s::api::core::v1::{Container, Pod};
use std::time::Duration;
use tokio::time::Instant;

/// Even what should end at once gets this many seconds to end by itself.
const MINIMUM_GRACE_SECONDS: i64 = 2;

/// One container to stop.
pub struct Killing<'a> {
    pub memory: &'a Memory,
    pub pod: &'a Pod,
    /// Nothing for a container that the pod's spec does not have.
    pub spec: Option<&'a Container>,
    pub kind: ContainerKind,
    pub id: &'a str,
    pub name: &'a str,
    pub ips: &'a [String],
    /// Told in an event; empty for the usual words.
    pub message: &'a str,
    /// Seconds.
    pub grace: i64,
}

/// How many seconds a container has to end, by its pod's spec and the reason.
pub fn grace_period(pod: &Pod, container: Option<&Container>, reason: KillReason) -> i64 {
    let of_probe = match reason {
        KillReason::Startup => container.and_then(|c| c.startup_probe.as_ref()),
        KillReason::Liveness => container.and_then(|c| c.liveness_probe.as_ref()),
        KillReason::Changed | KillReason::Unknown => None,
    };
    let of_probe = of_probe.and_then(|p| p.termination_grace_period_seconds);
    of_probe.unwrap_or_else(|| own_grace(pod))
}

/// Runs the hook, then stops the container; the hook's time counts as grace.
pub async fn kill_container(killing: &Killing<'_>) -> Result<(), CriError> {
    let Killing { memory, pod, kind, id, name, message, .. } = *killing;
    let message = if message.is_empty() { format!("Stopping container {name}") } else { message.to_owned() };
    memory.host.events.container(pod, kind, name, false, "Killing", message);
    let mut grace = killing.grace;
    if grace > 0 {
        grace -= pre_stop(killing).await;
    }
    let grace = u64::try_from(grace.max(MINIMUM_GRACE_SECONDS.min(killing.grace.max(1)))).unwrap_or(1);
    match memory.host.runtime.stop_container(id, grace).await {
        Err(CriError::NotFound { .. }) => Ok(()),
        result => result,
    }
}

/// Runs the hook and tells how many seconds it took.
async fn pre_stop(killing: &Killing<'_>) -> i64 {
    let Some(container) = killing.spec else { return 0 };
    let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return 0 };
    let start = Instant::now();
    let host = &killing.memory.host;
    let run = lifecycle::run(host, killing.pod, container, killing.id, killing.ips, hook);
    let limit = Duration::from_secs(u64::try_from(killing.grace).unwrap_or_default());
    if let Ok(Err(error)) = tokio::time::timeout(limit, run).await {
        tracing::debug!(container = killing.name, error, "a preStop hook failed");
        host.events.container(
            killing.pod,
            killing.kind,
            killing.name,
            true,
            "FailedPreStopHook",
            "PreStopHook failed".into(),
        );
    }
    i64::try_from(start.elapsed().as_secs()).unwrap_or(i64::MAX)
}

/// Stops all containers, then all sandboxes. `grace` overrides what the spec says, in seconds.
pub async fn kill_pod(memory: &Memory, pod: &Pod, observed: &Observed, grace: Option<i64>) -> Result<(), CriError> {
    let began = Instant::now();
    let running: Vec<&ContainerStatus> = observed
        .containers
        .iter()
        .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown))
        .collect();
    let sidecar_names: Vec<&str> =
        init_containers(pod).iter().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let is_sidecar = |c: &&ContainerStatus| sidecar_names.contains(&c.metadata.name.as_str());
    let (sidecars, others): (Vec<_>, Vec<_>) = running.into_iter().partition(is_sidecar);
    let results = join_all(others.into_iter().map(|c| stop(memory, pod, observed, c, grace, began))).await;
    for name in sidecar_names.iter().rev() {
        for container in sidecars.iter().filter(|c| c.metadata.name == *name) {
            stop(memory, pod, observed, container, grace, began).await?;
        }
    }
    results.into_iter().collect::<Result<Vec<()>, _>>()?;
    for sandbox in &observed.sandboxes {
        match memory.host.runtime.stop_pod_sandbox(&sandbox.id).await {
            Err(CriError::NotFound { .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Stops one of the pod's containers. All of them share one grace period, which `began` says the start of.
async fn stop(
    memory: &Memory,
    pod: &Pod,
    observed: &Observed,
    status: &ContainerStatus,
    grace: Option<i64>,
    began: Instant,
) -> Result<(), CriError> {
    let name = status.metadata.name.as_str();
    let found = lasting_containers(pod).find(|(_, c)| c.name == name);
    let (kind, container) = match found {
        Some((kind, container)) => (kind, Some(container)),
        None => (ContainerKind::Ephemeral, None),
    };
    let whole = grace.unwrap_or_else(|| grace_period(pod, container, KillReason::Changed));
    let spent = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
    let killing = Killing {
        memory,
        pod,
        spec: container,
        kind,
        id: &status.id,
        name,
        ips: observed.ips(),
        message: "",
        grace: whole.saturating_sub(spent).max(1),
    };
    kill_container(&killing).await
}
