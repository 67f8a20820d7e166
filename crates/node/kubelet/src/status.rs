//! Computes a pod's status: phase, conditions, addresses, and the container statuses within.
//!
//! Pure. Names, reasons and their order are upstream's.

use crate::container_status::{Input, Statuses, statuses};
use crate::observed::Observed;
use crate::plan::{pod_policy, restarts_after};
use crate::reference::{init_containers, is_sidecar, spec};
use crate::resize::{Change, Pending, change};
use crate::resources::{of_container, qos_class};
use jiff::Timestamp;
use pintle_types::Time;
use pintle_types::k8s::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};

/// The reason of pods that the node evicted.
pub const EVICTED: &str = "Evicted";
/// The reason of pods that made room for a critical one.
pub const PREEMPTED: &str = "Preempting";
/// The reason of pods that ended with the machine.
pub const TERMINATED: &str = "Terminated";

/// Why a pod was ended by the kubelet itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub reason: String,
    pub message: String,
}

/// The facts beside the containers' that a status shows.
pub struct Surroundings<'a> {
    /// The node's, the primary one first.
    pub host_ips: &'a [String],
    pub now: Timestamp,
    pub ended: Option<&'a Ended>,
    pub resize: Resize<'a>,
}

/// How far a change of the pod's resources is.
#[derive(Clone, Copy, Default)]
pub struct Resize<'a> {
    /// Why the pod does not have what it wishes for.
    pub pending: Option<&'a Pending>,
    /// Why its containers could not be told.
    pub error: Option<&'a str>,
}

/// The whole status.
pub fn status(input: &Input<'_>, around: &Surroundings<'_>) -> PodStatus {
    let list = statuses(input);
    let old = input.old;
    // Told when it is over: as long as something may run, it uses what others would take for free.
    let ended = around.ended.filter(|_| input.terminal);
    let phase = match (ended, around.ended.and(old.phase.as_deref())) {
        (Some(_), _) => "Failed",
        (None, Some(before)) => before,
        (None, None) => phase(input, &list),
    };
    let ips = addresses(input, around.host_ips);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(with_disruption(conditions(input, &list, phase, around), input, ended, around.now)),
        reason: ended.map(|e| e.reason.clone()).or_else(|| old.reason.clone()),
        message: ended.map(|e| e.message.clone()).or_else(|| old.message.clone()),
        host_ip: around.host_ips.first().cloned(),
        host_ips: Some(around.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: old.start_time.clone().or_else(|| Some(Time(seconds(around.now)))),
        qos_class: old.qos_class.clone().or_else(|| Some(qos_class(input.pod).as_str().to_owned())),
        observed_generation: input.pod.metadata.generation,
        ..Default::default()
    };
    status.init_container_statuses = (!list.init.is_empty()).then_some(list.init);
    status.container_statuses = (!list.regular.is_empty()).then_some(list.regular);
    status.ephemeral_container_statuses = (!list.ephemeral.is_empty()).then_some(list.ephemeral);
    status
}

/// Whether the phase is one from which a pod never comes back.
pub fn is_final(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The sandbox's addresses, that of the node's primary family first; those of the node on its network; the last known
/// ones once the sandbox is gone.
fn addresses(input: &Input<'_>, host_ips: &[String]) -> Vec<String> {
    if spec(input.pod).host_network == Some(true) {
        let there = input.observed.ready_sandbox().is_some() || input.old.pod_ip.is_some();
        return if there { host_ips.to_vec() } else { vec![] };
    }
    let ips = input.observed.ips();
    if !ips.is_empty() {
        let mut ips = ips.to_vec();
        let is_v6 = |ip: &String| ip.contains(':');
        let primary = host_ips.first().is_some_and(is_v6);
        ips.sort_by_key(|ip| is_v6(ip) != primary);
        return ips;
    }
    input.old.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect()
}

fn phase(input: &Input<'_>, list: &Statuses) -> &'static str {
    if is_final(input.old.phase.as_deref()) {
        return if input.old.phase.as_deref() == Some("Failed") { "Failed" } else { "Succeeded" };
    }
    let count = Count::of(input.pod, list);
    if count.init_failed {
        return "Failed";
    }
    if input.terminal {
        return if count.stopped > 0 && count.stopped == count.succeeded && count.waiting == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if count.init_pending || count.waiting > 0 {
        "Pending"
    } else if count.running > 0 {
        "Running"
    } else if count.stopped == 0 {
        "Pending"
    } else if count.will_restart {
        "Running"
    } else if count.stopped == count.succeeded {
        "Succeeded"
    } else {
        "Failed"
    }
}

#[derive(Default)]
struct Count {
    init_pending: bool,
    init_failed: bool,
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    will_restart: bool,
}

impl Count {
    fn of(pod: &Pod, list: &Statuses) -> Self {
        let mut count = Self::default();
        let initialized = any_started(list);
        for (container, status) in init_containers(pod).iter().zip(&list.init) {
            let state = status.state.clone().unwrap_or_default();
            let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
            if is_sidecar(container) {
                count.init_pending |= !initialized && status.started != Some(true);
                // Those that have ended don't count: the pod is over without them, but not before they end.
                count.running += usize::from(state.running.is_some());
            } else if let Some(end) = state.terminated.as_ref().or(last.filter(|_| state.waiting.is_some())) {
                count.init_pending |= end.exit_code != 0 && !initialized;
                count.init_failed |= end.exit_code != 0 && !restarts_after(pod, container, end.exit_code);
            } else {
                count.init_pending |= !initialized;
            }
        }
        for container in &spec(pod).containers {
            let Some(status) = list.regular.iter().find(|s| s.name == container.name) else { continue };
            count.regular(pod, container, status);
        }
        count
    }

    fn regular(
        &mut self,
        pod: &Pod,
        container: &pintle_types::k8s::api::core::v1::Container,
        status: &ContainerStatus,
    ) {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(end) = &state.terminated {
            self.stopped += 1;
            self.succeeded += usize::from(end.exit_code == 0);
            self.will_restart |= restarts_after(pod, container, end.exit_code);
        } else if last.is_some() {
            self.stopped += 1;
            self.will_restart |= pod_policy(pod) != "Never" || container.restart_policy.is_some();
        } else {
            self.waiting += 1;
        }
    }
}

/// Whether a regular container runs or has run.
fn any_started(list: &Statuses) -> bool {
    list.regular.iter().any(|s| {
        let state = s.state.clone().unwrap_or_default();
        let last = s.last_state.clone().unwrap_or_default();
        state.running.is_some() || state.terminated.is_some() || last.terminated.is_some()
    })
}

/// A condition's status, with reason and message when it is not simply true.
struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    const TRUE: Self = Self { status: true, reason: "", message: String::new() };

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: false, reason, message: message.into() }
    }
}

fn conditions(
    input: &Input<'_>,
    list: &Statuses,
    phase: &str,
    Surroundings { now, resize, .. }: &Surroundings<'_>,
) -> Vec<PodCondition> {
    let containers_ready = containers_ready(input.pod, list, phase);
    let ready = ready(input, &containers_ready);
    let sandbox = if has_sandbox(input.pod, input.observed) { Verdict::TRUE } else { Verdict::no("", "") };
    let mut own = vec![
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized(input.pod, list, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::TRUE),
    ];
    own.extend(resizing(input, phase, resize));
    let old = input.old.conditions.as_deref().unwrap_or_default();
    let names: Vec<&str> = own.iter().map(|(name, _)| *name).chain(RESIZE_CONDITIONS).collect();
    let mut all: Vec<PodCondition> = Vec::with_capacity(own.len() + old.len());
    for (name, verdict) in &own {
        let before = old.iter().find(|c| c.type_ == *name);
        all.push(condition(name, verdict, before, input.pod.metadata.generation, *now));
    }
    all.extend(old.iter().filter(|c| !names.contains(&c.type_.as_str())).cloned());
    all
}

/// Conditions that are there only while a change of resources is under way.
pub const RESIZE_CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

fn resizing(input: &Input<'_>, phase: &str, resize: &Resize<'_>) -> Vec<(&'static str, Verdict)> {
    if is_final(Some(phase)) || input.terminal {
        return vec![];
    }
    let mut all = Vec::new();
    if let Some(Pending { reason, message }) = resize.pending {
        all.push((RESIZE_CONDITIONS[0], Verdict { status: true, reason, message: message.clone() }));
    }
    let running = crate::reference::lasting_containers(input.pod)
        .filter_map(|(_, c)| Some((c, input.observed.running().find(|s| s.metadata.name == c.name)?)));
    let behind = |(c, s): (&_, &_)| change(c, s, &of_container(input.pod, c, 1)) != Change::None;
    if running.into_iter().any(behind) {
        let verdict = match resize.error {
            Some(error) => Verdict { status: true, reason: "Error", message: error.to_owned() },
            None => Verdict::TRUE,
        };
        all.push((RESIZE_CONDITIONS[1], verdict));
    }
    all
}

/// What a pod says of its disruption, if it was evicted, preempted, or ended with the machine.
fn disruption(ended: &Ended) -> Option<&str> {
    match ended.reason.as_str() {
        EVICTED | TERMINATED => Some(&ended.message),
        PREEMPTED => Some("Pod was preempted by Kubelet to accommodate a critical pod."),
        _ => None,
    }
}

/// A pod that was disrupted says so, and by whom.
fn with_disruption(
    mut all: Vec<PodCondition>,
    input: &Input<'_>,
    ended: Option<&Ended>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let Some(message) = ended.and_then(disruption) else { return all };
    let name = "DisruptionTarget";
    let before = all.iter().position(|c| c.type_ == name).map(|at| all.remove(at));
    let verdict = Verdict { status: true, reason: "TerminationByKubelet", message: message.to_owned() };
    all.insert(0, condition(name, &verdict, before.as_ref(), input.pod.metadata.generation, now));
    all
}

fn condition(
    name: &str,
    verdict: &Verdict,
    before: Option<&PodCondition>,
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let since = before.filter(|b| b.status == status).and_then(|b| b.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: Some(verdict.reason.to_owned()).filter(|r| !r.is_empty()),
        message: Some(verdict.message.clone()).filter(|m| !m.is_empty()),
        last_transition_time: Some(since.unwrap_or_else(|| Time(seconds(now)))),
        observed_generation: generation,
        ..Default::default()
    }
}

fn has_sandbox(pod: &Pod, observed: &Observed) -> bool {
    let Some(sandbox) = observed.ready_sandbox() else { return false };
    spec(pod).host_network == Some(true) || !sandbox.ips.is_empty()
}

fn containers_ready(pod: &Pod, list: &Statuses, phase: &str) -> Verdict {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = init_containers(pod).iter().filter(|c| is_sidecar(c));
    for container in sidecars.chain(&spec(pod).containers) {
        match list.init.iter().chain(&list.regular).find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match phase {
        "Succeeded" if unknown.is_empty() => Verdict::no("PodCompleted", ""),
        "Failed" => Verdict::no("PodFailed", ""),
        _ => match joined(&unknown, "unready", &unready) {
            Some(message) => Verdict::no("ContainersNotReady", message),
            None => Verdict::TRUE,
        },
    }
}

/// `containers with unknown status: [a], containers with unready status: [b c]`
fn joined(unknown: &[&str], word: &str, names: &[&str]) -> Option<String> {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !names.is_empty() {
        parts.push(format!("containers with {word} status: [{}]", names.join(" ")));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn ready(input: &Input<'_>, containers: &Verdict) -> Verdict {
    if !containers.status {
        return Verdict::no(containers.reason, containers.message.clone());
    }
    let conditions = input.old.conditions.as_deref().unwrap_or_default();
    let mut missing = Vec::new();
    for gate in spec(input.pod).readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match conditions.iter().find(|c| c.type_ == *name) {
            None => missing.push(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(c) if c.status != "True" => {
                missing.push(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", c.status));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() { Verdict::TRUE } else { Verdict::no("ReadinessGatesNotReady", missing.join(", ")) }
}

fn initialized(pod: &Pod, list: &Statuses, phase: &str) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in init_containers(pod) {
        match list.init.iter().find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) if is_sidecar(container) && s.started != Some(true) => incomplete.push(container.name.as_str()),
            Some(s) if !is_sidecar(container) && !s.ready => incomplete.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict { status: true, reason: "PodCompleted", message: String::new() };
    }
    if any_started(list) {
        return Verdict::TRUE;
    }
    match joined(&unknown, "incomplete", &incomplete) {
        Some(message) => Verdict::no("ContainersNotInitialized", message),
        None => Verdict::TRUE,
    }
}
