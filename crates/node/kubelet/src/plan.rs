//! Decides what is to be done for a pod: its spec and what the runtime has of it in, an ordered list of actions out.
//!
//! Pure. The rules are those of upstream's `computePodActions`: a changed sandbox takes everything down with it;
//! init containers run one after the other and the last that ran says how far the pod is; a sidecar is an init
//! container that keeps running; when nothing runs and nothing is to start, the pod is over.

use crate::labels::container_hash;
use crate::observed::{Observed, on_host_network};
use crate::probe::Verdicts;
use crate::reference::{ContainerKind, ephemeral_containers, init_containers, is_sidecar, spec};
use crate::resize::{self, Change};
use crate::resources::of_container;
use pintle_cri::{ContainerState, ContainerStatus, SandboxState};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod};

/// Why a container is killed, as far as its grace period depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    Changed,
    Startup,
    Liveness,
    Unknown,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop all containers and sandboxes.
    KillPod,
    /// Stop one container. `message` is told in an event.
    Kill { id: String, name: String, reason: KillReason, message: String },
    /// Give a running container the resources that its pod has now.
    Resize { id: String, name: String },
    /// Make a sandbox; `attempt` counts from 0.
    CreateSandbox { attempt: u32 },
    /// Start a container: the nth of its list.
    Start { kind: ContainerKind, index: usize },
}

/// What to do now, in order. Nothing to do is an empty list.
// flow: pod 10/16
pub fn plan(pod: &Pod, observed: &Observed, verdicts: &Verdicts) -> Vec<Action> {
    let planner = Planner { pod, observed, verdicts, kills: Vec::new(), resizes: Vec::new(), starts: Vec::new() };
    match sandbox_attempt(pod, observed) {
        Some(attempt) => planner.anew(attempt),
        None => planner.go_on(),
    }
}

/// Whether a container that is not running is to run (again).
pub fn should_restart(pod: &Pod, container: &Container, status: Option<&ContainerStatus>) -> bool {
    if pod.is_deleting() {
        return false;
    }
    match status {
        None => true,
        Some(status) => match status.state {
            ContainerState::Running => false,
            ContainerState::Unknown | ContainerState::Created => true,
            ContainerState::Exited => restarts_after(pod, container, status.exit_code),
        },
    }
}

/// Whether the container's restart policy (its rules, its own, or the pod's) wants it again after an exit code.
pub fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
        if listed == (codes.operator == "In") && rule.action == "Restart" {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| pod_policy(pod)) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The pod's restart policy.
pub fn pod_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// The attempt number of the sandbox that must be made; nothing when the one that is there will do.
fn sandbox_attempt(pod: &Pod, observed: &Observed) -> Option<u32> {
    let Some(newest) = observed.sandbox() else { return Some(0) };
    let next = Some(newest.metadata.attempt + 1);
    if observed.sandboxes.iter().filter(|s| s.state == SandboxState::Ready).count() > 1 {
        return next;
    }
    let host_network = spec(pod).host_network == Some(true);
    let usable = newest.state == SandboxState::Ready
        && on_host_network(newest) == host_network
        && (host_network || !newest.ips.is_empty());
    if usable { None } else { next }
}

struct Planner<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    verdicts: &'a Verdicts,
    kills: Vec<Action>,
    resizes: Vec<Action>,
    starts: Vec<Action>,
}

impl Planner<'_> {
    /// There is no usable sandbox: what runs goes, and the pod starts anew unless it is over already.
    fn anew(self, attempt: u32) -> Vec<Action> {
        let mut actions = vec![];
        if !self.observed.sandboxes.is_empty() || self.observed.running().next().is_some() {
            actions.push(Action::KillPod);
        }
        if pod_policy(self.pod) == "Never" && attempt != 0 && !self.observed.containers.is_empty() {
            return actions;
        }
        let wanted: Vec<usize> =
            (0..spec(self.pod).containers.len()).filter(|i| !self.succeeded_for_good(*i)).collect();
        if wanted.is_empty() {
            return actions;
        }
        actions.push(Action::CreateSandbox { attempt });
        if init_containers(self.pod).is_empty() {
            actions.extend(wanted.into_iter().map(|index| Action::Start { kind: ContainerKind::Regular, index }));
        } else {
            actions.push(Action::Start { kind: ContainerKind::Init, index: 0 });
        }
        actions
    }

    /// Whether a regular container ended in a way after which its policy never starts it again.
    fn succeeded_for_good(&self, index: usize) -> bool {
        let container = &spec(self.pod).containers[index];
        let status = self.observed.container(&container.name);
        status.is_some_and(|s| {
            s.state == ContainerState::Exited && s.exit_code == 0 && !restarts_after(self.pod, container, 0)
        })
    }

    fn go_on(mut self) -> Vec<Action> {
        self.start_ephemeral();
        match self.init_containers() {
            Initialization::Failed => return vec![Action::KillPod],
            Initialization::Pending => return self.finish(),
            Initialization::Done => {}
        }
        let (mut kept, mut started) = (0, Vec::new());
        for (index, container) in spec(self.pod).containers.iter().enumerate() {
            match self.regular(container) {
                Fate::Keep => kept += 1,
                Fate::Start => started.push(Action::Start { kind: ContainerKind::Regular, index }),
                Fate::Leave => {}
            }
        }
        if kept == 0 && started.is_empty() {
            return vec![Action::KillPod];
        }
        self.starts.extend(started);
        self.finish()
    }

    fn finish(self) -> Vec<Action> {
        self.kills.into_iter().chain(self.resizes).chain(self.starts).collect()
    }

    fn start_ephemeral(&mut self) {
        for (index, (container, _)) in ephemeral_containers(self.pod).iter().enumerate() {
            if self.observed.container(&container.name).is_none() {
                self.starts.push(Action::Start { kind: ContainerKind::Ephemeral, index });
            }
        }
    }

    fn regular(&mut self, container: &Container) -> Fate {
        let status = self.observed.container(&container.name);
        let Some(status) = status.filter(|s| s.state == ContainerState::Running) else {
            if !should_restart(self.pod, container, status) {
                return Fate::Leave;
            }
            if let Some(status) = status.filter(|s| s.state == ContainerState::Unknown) {
                let message = format!("Container is in {:?} state, try killing it before restart", "Unknown");
                self.kill(container, status, KillReason::Unknown, message);
            }
            return Fate::Start;
        };
        let verdict = self.verdicts.of(&status.id);
        let restart =
            pod_policy(self.pod) != "Never" || container.restart_policy.as_deref().is_some_and(|p| p != "Never");
        let (reason, message, restart) = if changed(container, status) {
            (KillReason::Changed, format!("Container {} definition changed", container.name), true)
        } else if verdict.liveness == Some(false) {
            (KillReason::Liveness, format!("Container {} failed liveness probe", container.name), restart)
        } else if verdict.startup == Some(false) {
            (KillReason::Startup, format!("Container {} failed startup probe", container.name), restart)
        } else {
            match self.resize(container, status) {
                Change::None | Change::InPlace => return Fate::Keep,
                Change::Restart => {
                    let message = format!("Container {} resize requires restart", container.name);
                    self.kill(container, status, KillReason::Changed, message);
                    return Fate::Start;
                }
            }
        };
        let message = if restart { format!("{message}, will be restarted") } else { message };
        self.kill(container, status, reason, message);
        if restart { Fate::Start } else { Fate::Keep }
    }

    /// Notes that a container is to have other resources.
    fn resize(&mut self, container: &Container, status: &ContainerStatus) -> Change {
        // Only the score for the kernel depends on the machine's memory, and that is not compared.
        let change = resize::change(container, status, &of_container(self.pod, container, 1));
        if change == Change::InPlace {
            self.resizes.push(Action::Resize { id: status.id.clone(), name: container.name.clone() });
        }
        change
    }

    fn kill(&mut self, container: &Container, status: &ContainerStatus, reason: KillReason, message: String) {
        self.kills.push(Action::Kill { id: status.id.clone(), name: container.name.clone(), reason, message });
    }

    /// Goes through the init containers from the last to the first: the last one that ran says how far the pod is.
    fn init_containers(&mut self) -> Initialization {
        let list = init_containers(self.pod);
        if list.is_empty() {
            return Initialization::Done;
        }
        let mut done = self.any_regular_started();
        let mut seen = done;
        let mut starts = Vec::new();
        for (index, container) in list.iter().enumerate().rev() {
            let Some(status) = self.observed.container(&container.name) else {
                if seen && is_sidecar(container) {
                    starts.push(index);
                }
                continue;
            };
            if seen && !is_sidecar(container) {
                continue;
            }
            match self.init_step(container, status) {
                InitStep::Wait => {}
                InitStep::Again => starts.push(index),
                InitStep::Passed if index + 1 == list.len() => done = true,
                InitStep::Passed if !seen => starts.push(index + 1),
                InitStep::Passed => {}
                InitStep::Failed => return Initialization::Failed,
            }
            seen = true;
        }
        if !seen {
            starts.push(0);
        }
        starts.reverse();
        starts.dedup();
        self.starts.extend(starts.into_iter().map(|index| Action::Start { kind: ContainerKind::Init, index }));
        if done { Initialization::Done } else { Initialization::Pending }
    }

    fn any_regular_started(&self) -> bool {
        spec(self.pod).containers.iter().filter_map(|c| self.observed.container(&c.name)).any(|s| {
            matches!(s.state, ContainerState::Created | ContainerState::Running)
                || (s.state == ContainerState::Exited && self.in_newest_sandbox(s))
        })
    }

    /// A container that ended belongs to the sandbox that is there now, rather than to one that was replaced.
    fn in_newest_sandbox(&self, status: &ContainerStatus) -> bool {
        self.observed.sandbox().is_some_and(|s| status.created_at >= s.created_at)
    }

    fn init_step(&mut self, container: &Container, status: &ContainerStatus) -> InitStep {
        match status.state {
            ContainerState::Created => InitStep::Wait,
            ContainerState::Running if is_sidecar(container) => self.sidecar(container, status),
            ContainerState::Running => InitStep::Wait,
            _ if !self.in_newest_sandbox(status) => InitStep::Again,
            ContainerState::Exited if is_sidecar(container) => InitStep::Again,
            ContainerState::Exited if status.exit_code == 0 => InitStep::Passed,
            ContainerState::Exited if !restarts_after(self.pod, container, status.exit_code) => InitStep::Failed,
            ContainerState::Exited => InitStep::Again,
            ContainerState::Unknown => {
                let message = format!("Init container is in {:?} state, try killing it before restart", "Unknown");
                self.kill(container, status, KillReason::Unknown, message);
                InitStep::Again
            }
        }
    }

    fn sidecar(&mut self, container: &Container, status: &ContainerStatus) -> InitStep {
        let verdict = self.verdicts.of(&status.id);
        if container.startup_probe.is_some() {
            match verdict.startup {
                None => return InitStep::Wait,
                Some(false) => {
                    let message = format!("Init container {} failed startup probe", container.name);
                    self.kill(container, status, KillReason::Startup, message);
                    return InitStep::Again;
                }
                Some(true) => {}
            }
        }
        if verdict.liveness == Some(false) {
            let message = format!("Init container {} failed liveness probe", container.name);
            self.kill(container, status, KillReason::Liveness, message);
            return InitStep::Again;
        }
        if self.resize(container, status) == Change::Restart {
            let message = format!("Init container {} resize requires restart", container.name);
            self.kill(container, status, KillReason::Changed, message);
            return InitStep::Again;
        }
        InitStep::Passed
    }
}

enum Initialization {
    Pending,
    Done,
    /// An init container failed and is not to run again: so is the pod.
    Failed,
}

enum InitStep {
    Wait,
    Again,
    Passed,
    Failed,
}

enum Fate {
    Keep,
    Start,
    Leave,
}

/// Whether a running container is not the one that its pod now wants.
fn changed(container: &Container, status: &ContainerStatus) -> bool {
    status.annotations.get(crate::labels::CONTAINER_HASH).is_some_and(|hash| *hash != container_hash(container))
}
