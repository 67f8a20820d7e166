//! The tasks that probe: started when a container runs, ended with it.

use super::count::Count;
use super::{ProbeKind, Unhealthy, exec, grpc, http, tcp};
use crate::memory::Memory;
use crate::observed::Observed;
use crate::reference::{ContainerKind, is_sidecar, lasting_containers};
use pintle_cri::ContainerState;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod, Probe};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// A container that has run for longer than this was there before the kubelet: its probes are spread out.
const ADOPTED_AFTER: Duration = Duration::from_secs(30);

/// The probing tasks of one pod. They end with it.
#[derive(Default)]
pub struct Workers {
    tasks: HashMap<(String, ProbeKind), Task>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Workers {
    /// Starts what is to be probed and ends what is not. Once a pod is ending, only readiness is of interest.
    pub fn reconcile(&mut self, memory: &Arc<Memory>, pod: &Arc<Pod>, observed: &Observed, ending: bool) {
        let mut wanted = Vec::new();
        for (kind, container) in lasting_containers(pod) {
            if kind == ContainerKind::Init && !is_sidecar(container) {
                continue;
            }
            let newest = observed.container(&container.name);
            let Some(status) = newest.filter(|s| s.state == ContainerState::Running) else { continue };
            let started =
                container.startup_probe.is_none() || memory.verdicts.lock().of(&status.id).startup == Some(true);
            for (probe_kind, probe) in probes(container, started, ending) {
                let key = (status.id.clone(), probe_kind);
                wanted.push(key.clone());
                self.tasks.entry(key).or_insert_with(|| {
                    let worker = Worker {
                        labels: labels(pod, &container.name, probe_kind),
                        memory: Arc::clone(memory),
                        pod: Arc::clone(pod),
                        container: container.clone(),
                        list: kind,
                        id: status.id.clone(),
                        ips: observed.ips().to_vec(),
                        kind: probe_kind,
                        probe: probe.clone(),
                    };
                    // Aborted when the entry is dropped, at the latest with the pod's actor.
                    Task(tokio::spawn(worker.run(status.started_at)).abort_handle())
                });
            }
        }
        self.tasks.retain(|key, _| wanted.contains(key));
        memory.verdicts.lock().keep(|id| observed.running().any(|c| c.id == id));
    }

    pub fn stop_all(&mut self) {
        self.tasks.clear();
    }
}

fn probes(container: &Container, started: bool, ending: bool) -> Vec<(ProbeKind, &Probe)> {
    let all = [
        (ProbeKind::Startup, &container.startup_probe, !started && !ending),
        (ProbeKind::Liveness, &container.liveness_probe, started && !ending),
        (ProbeKind::Readiness, &container.readiness_probe, started),
    ];
    all.into_iter()
        .filter(|(_, _, wanted)| *wanted)
        .filter_map(|(kind, probe, _)| Some((kind, probe.as_ref()?)))
        .collect()
}

struct Worker {
    memory: Arc<Memory>,
    pod: Arc<Pod>,
    container: Container,
    list: ContainerKind,
    id: String,
    ips: Vec<String>,
    kind: ProbeKind,
    probe: Probe,
    labels: String,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
}

impl Worker {
    async fn run(self, started_at: i64) {
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        let mut ticks = interval_at(Instant::now() + self.first_delay(started_at, period), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = Count::new(&self.probe);
        loop {
            ticks.tick().await;
            let result = self.probe_once().await;
            if let Err(unhealthy) = &result {
                self.tell(unhealthy);
            }
            if matches!(result, Err(Unhealthy::Errored(_))) {
                continue;
            }
            self.memory.host.probes.add(&self.labels, result.is_ok());
            let Some(verdict) = count.add(result.is_ok()) else { continue };
            if self.memory.verdicts.lock().set(&self.id, self.kind, verdict) {
                self.memory.wake.notify_one();
            }
            // Startup is over when it succeeded; after a failure the container is killed.
            if self.kind == ProbeKind::Startup || (self.kind == ProbeKind::Liveness && !verdict) {
                return;
            }
        }
    }

    /// What is left of the initial delay; probes of adopted containers begin at random within a period.
    fn first_delay(&self, started_at: i64, period: Duration) -> Duration {
        let now = i64::try_from(self.memory.host.clock.unix_nanos()).unwrap_or(i64::MAX);
        let runs_for = Duration::from_nanos(u64::try_from(now.saturating_sub(started_at)).unwrap_or_default());
        let delay = seconds(self.probe.initial_delay_seconds, 0).saturating_sub(runs_for);
        if runs_for > ADOPTED_AFTER && delay.is_zero() { period.mul_f64(rand::random()) } else { delay }
    }

    fn tell(&self, unhealthy: &Unhealthy) {
        let kind = self.kind.as_str();
        let message = match unhealthy {
            Unhealthy::Failed(message) => format!("{kind} probe failed: {message}"),
            Unhealthy::Errored(message) => format!("{kind} probe errored and resulted in unknown state: {message}"),
        };
        self.memory.host.events.container(&self.pod, self.list, &self.container.name, true, "Unhealthy", message);
    }

    async fn probe_once(&self) -> Result<(), Unhealthy> {
        let timeout = seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let of_node = self.memory.host.settings.node_ips.first();
        let ip = self.ips.first().or(of_node).map_or("", String::as_str);
        if let Some(action) = &self.probe.exec {
            let command = action.command.as_deref().unwrap_or_default();
            return exec::run(self.memory.host.runtime.as_ref(), &self.id, command, timeout).await;
        }
        if let Some(action) = &self.probe.http_get {
            let target = http::Target::of_action(action, &self.container, ip, "kube-probe/1.36");
            let target = target.map_err(Unhealthy::Errored)?;
            return http::get(&target, timeout).await.map(drop).map_err(Unhealthy::Failed);
        }
        if let Some(action) = &self.probe.tcp_socket {
            let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
            let port = http::port(&action.port, &self.container).map_err(Unhealthy::Errored)?;
            return tcp::connect(host, port, timeout).await.map(drop).map_err(Unhealthy::Failed);
        }
        if let Some(action) = &self.probe.grpc {
            let bad = |_| Unhealthy::Errored(format!("invalid port number: {}", action.port));
            let port = u16::try_from(action.port).map_err(bad)?;
            let service = action.service.as_deref().unwrap_or_default();
            return grpc::check(ip, port, service, timeout).await.map_err(Unhealthy::Failed);
        }
        let (container, pod) = (&self.container.name, crate::reference::pod_text(&self.pod));
        Err(Unhealthy::Errored(format!("missing probe handler for {pod}:{container}")))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.memory.host.probes.forget(&self.labels);
    }
}

/// What the results of a worker are counted by.
fn labels(pod: &Pod, container: &str, kind: ProbeKind) -> String {
    let (namespace, name, uid) = (pod.namespace(), pod.name(), pod.uid());
    let kind = kind.as_str();
    format!(
        "container=\"{container}\",namespace=\"{namespace}\",pod=\"{name}\",pod_uid=\"{uid}\",probe_type=\"{kind}\""
    )
}
