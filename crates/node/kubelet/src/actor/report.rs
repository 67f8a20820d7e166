//! What an actor tells of its pod, and what it learns of what others told: the pod's status, or that of a static pod's
//! mirror.

use super::{Actor, LAST_RETRY, Next, Stage};
use crate::api::ApiError;
use crate::container_status::{Input, id_in_runtime};
use crate::memory::Memory;
use crate::observed::Observed;
use crate::probe::ProbeKind;
use crate::push::{OWN_CONDITIONS, push};
use crate::reference::pod_text;
use crate::static_pods::is_static;
use crate::status::{Ended, Resize, Surroundings, TERMINATED, status};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Pod, PodStatus};
use std::sync::Arc;

/// The object that mirrors a static pod.
pub(super) struct Mirror {
    pod: Arc<Pod>,
    /// As the API server has it.
    status: PodStatus,
    pushed: u64,
}

impl Actor {
    /// Tells that the pod is not taken, and keeps it to be looked at.
    pub(super) async fn refuse(&mut self, refused: Ended) {
        self.memory.host.events.pod(&self.pod, true, &refused.reason, refused.message.clone());
        let message = format!("Pod was rejected: {}", refused.message);
        let status = PodStatus {
            phase: Some("Failed".into()),
            reason: Some(refused.reason.clone()),
            message: Some(message.clone()),
            qos_class: Some(crate::resources::qos_class(&self.pod).as_str().to_owned()),
            conditions: self.status.conditions.clone(),
            observed_generation: self.pod.metadata.generation,
            ..Default::default()
        };
        // A mirror is told once it is there.
        while !is_static(&self.pod) {
            match push(self.memory.host.api.as_ref(), &self.pod, &self.status, &status).await {
                Ok(version) => {
                    self.pushed = version.unwrap_or(self.pushed);
                    break;
                }
                Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => break,
                Err(error) => {
                    tracing::warn!(%error, pod = pod_text(&self.pod), "a refusal can't be pushed; trying again");
                    tokio::time::sleep(self.retry).await;
                    self.retry = (self.retry * 2).min(LAST_RETRY);
                }
            }
        }
        self.status = status;
        self.memory.host.allocations.forget(self.pod.uid());
        self.ended = Some(Ended { reason: refused.reason, message });
        self.stage = Stage::Kept;
    }

    /// Pushes the status if it changed. Returns whether the API server has it now.
    pub(super) async fn report(&mut self, observed: &Observed, terminal: bool) -> bool {
        let now = self.memory.host.clock.now();
        let new = {
            let failures = self.memory.failures.lock().clone();
            let verdicts = self.memory.verdicts.lock().clone();
            let (pod, old) = (&self.pod, self.untold.as_ref().unwrap_or(&self.status));
            let runtime = &self.memory.host.settings.runtime;
            let input = Input { pod, runtime, observed, old, failures: &failures, verdicts: &verdicts, terminal };
            let host_ips = &self.memory.host.settings.node_ips;
            let error = self.memory.resize_error.lock().clone();
            let resize = Resize { pending: self.pending.as_ref(), error: error.as_deref() };
            status(&input, &Surroundings { host_ips, now, ended: self.ended.as_ref(), resize })
        };
        if self.gone {
            return true;
        }
        if new.phase.as_deref() == Some("Running")
            && let Some(seen) = self.new_since.take()
        {
            self.memory.host.measures.pod_start.observe(seen.elapsed().as_secs_f64());
        }
        if is_static(&self.pod) {
            return self.report_static(new).await;
        }
        if new == self.status {
            return true;
        }
        match push(self.memory.host.api.as_ref(), &self.pod, &self.status, &new).await {
            Ok(version) => {
                self.status = new;
                self.untold = None;
                self.pushed = version.unwrap_or(self.pushed);
                true
            }
            // Another pod of that name, or none: this one is gone, and the watch will say so.
            Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => true,
            Err(error) => {
                tracing::warn!(%error, pod = pod_text(&self.pod), "the status can't be pushed; trying again");
                self.untold = Some(new);
                false
            }
        }
    }

    /// Tells the mirror of a static pod that has ended, which may be another than the one that was told.
    pub(super) async fn tell_mirror(&mut self) -> Next {
        if !is_static(&self.pod) || self.report_static(self.status.clone()).await {
            Next::Wait(None)
        } else {
            self.later()
        }
    }

    /// Tells the mirror of a static pod; without one, the status is only remembered.
    async fn report_static(&mut self, new: PodStatus) -> bool {
        self.status.clone_from(&new);
        let Some(mirror) = &mut self.mirror else { return true };
        if mirror.status == new {
            return true;
        }
        match push(self.memory.host.api.as_ref(), &mirror.pod, &mirror.status, &new).await {
            Ok(version) => {
                mirror.status = new;
                mirror.pushed = version.unwrap_or(mirror.pushed);
                true
            }
            // Another mirror, or none: the watch will say so.
            Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => true,
            Err(error) => {
                tracing::debug!(%error, pod = pod_text(&self.pod), "a mirror's status can't be pushed; trying again");
                false
            }
        }
    }

    /// What others did to the status is known from here on: the kubelet's own part is told again if it was changed,
    /// such as the readiness of pods on a node that was silent for a while; the rest is left as it is.
    pub(super) fn adopt_status(&mut self, pod: &Pod) {
        if pod.version() > 0 && pod.version() >= self.pushed {
            self.status = pod.status.clone().unwrap_or_default();
        }
        self.adopt_foreign_conditions(pod);
    }

    pub(super) fn adopt_mirror(&mut self, mirror: Option<Arc<Pod>>) {
        let Some(pod) = mirror else {
            self.mirror = None;
            return;
        };
        let same = self.mirror.as_ref().filter(|m| m.pod.uid() == pod.uid());
        if same.is_some_and(|m| pod.version() < m.pushed) {
            return;
        }
        let status = pod.status.clone().unwrap_or_default();
        // One that ended with the machine runs again when the machine does.
        let is_over = status.reason.as_deref() == Some(TERMINATED);
        if self.status == PodStatus::default() && status.start_time.is_some() && !is_over {
            // A restart of the kubelet: the pod goes on where its mirror says that it was.
            remember_verdicts(&self.memory, &status);
            self.status = status.clone();
        }
        self.mirror = Some(Mirror { pod, status, pushed: 0 });
    }

    /// A pod older than the last push still tells of readiness gates.
    pub(super) fn adopt_foreign_conditions(&mut self, pod: &Pod) {
        let theirs = |c: &pintle_types::k8s::api::core::v1::PodCondition| !OWN_CONDITIONS.contains(&c.type_.as_str());
        let all = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        let foreign: Vec<_> = all.into_iter().flatten().filter(|c| theirs(c)).cloned().collect();
        for status in self.untold.iter_mut().chain([&mut self.status]) {
            let own = status.conditions.get_or_insert_default();
            own.retain(|c| !theirs(c));
            own.extend(foreign.iter().cloned());
        }
    }
}

/// After a restart of the kubelet, what was ready is ready until its probe says otherwise.
pub(super) fn remember_verdicts(memory: &Memory, status: &PodStatus) {
    let mut verdicts = memory.verdicts.lock();
    let lists = [&status.init_container_statuses, &status.container_statuses];
    for container in lists.into_iter().flat_map(|list| list.iter().flatten()) {
        let id = container.container_id.as_deref().and_then(id_in_runtime);
        let Some(id) = id.filter(|_| container.state.as_ref().is_some_and(|s| s.running.is_some())) else { continue };
        if container.started == Some(true) {
            verdicts.set(id, ProbeKind::Startup, true);
        }
        if container.ready {
            verdicts.set(id, ProbeKind::Readiness, true);
        }
    }
}
