//! The step of a pod that is to run: it is brought to where its spec wants it, and reported on meanwhile.

use super::{Actor, FIRST_RETRY, LAST_RETRY, Next, Stage};
use crate::act::{Act, Outcome};
use crate::backoff::elapsed;
use crate::memory::Memory;
use crate::observed::Observed;
use crate::plan::plan;
use crate::reference::{pod_text, spec};
use crate::status::{Ended, is_final};
use crate::volumes;
use pintle_types::k8s::api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long changes are gathered into one report while a step is under way.
const REPORT_DELAY: Duration = Duration::from_millis(150);
/// Between looks for room for a pod that wishes for more.
const DEFERRED_RETRY: Duration = Duration::from_secs(30);

impl Actor {
    // flow: pod 9/16
    pub(super) async fn sync(&mut self) -> Next {
        if let Some(wished) = self.wished.take() {
            // There may be room by now.
            self.allocate(wished);
        }
        let observed = match self.look().await {
            Ok(observed) => observed,
            Err(next) => return next,
        };
        self.workers.reconcile(&self.memory, &self.pod, &observed, false);
        let deadline = self.deadline();
        if deadline.is_some_and(|left| left.is_zero()) {
            self.ended = Some(Ended {
                reason: "DeadlineExceeded".into(),
                message: "Pod was active on the node longer than the specified deadline".into(),
            });
            self.stage = Stage::Terminating;
            return Next::Again;
        }
        self.pinned.pin(&self.memory, &self.pod);
        let Some(outcome) = self.work(observed).await else { return Next::Again };
        let observed = match self.look().await {
            Ok(observed) => observed,
            Err(next) => return next,
        };
        self.workers.reconcile(&self.memory, &self.pod, &observed, false);
        let reported = self.report(&observed, false).await;
        if is_final(self.status.phase.as_deref()) {
            self.stage = Stage::Terminating;
            return Next::Again;
        }
        self.next_look(outcome, reported, deadline).await
    }

    /// What is left of the pod's active deadline.
    fn deadline(&self) -> Option<Duration> {
        let seconds = u64::try_from(spec(&self.pod).active_deadline_seconds?).ok()?;
        let since = self.status.start_time.as_ref()?.0;
        let active = elapsed(since, self.memory.host.clock.now());
        Some(Duration::from_secs(seconds).saturating_sub(active))
    }

    async fn next_look(&mut self, outcome: Outcome, reported: bool, deadline: Option<Duration>) -> Next {
        let mut delays: Vec<Duration> = outcome.again_after.into_iter().chain(deadline).collect();
        if outcome.failed || !reported {
            delays.push(self.retry);
            self.retry = (self.retry * 2).min(LAST_RETRY);
        } else {
            self.retry = FIRST_RETRY;
        }
        let deferred = self.pending.as_ref().is_some_and(|p| p.reason == "Deferred");
        delays.extend(deferred.then_some(DEFERRED_RETRY));
        let now = self.memory.host.clock.now();
        let tokens = self.memory.volumes.lock().await.tokens.refresh_at();
        delays.extend(tokens.map(|at| elapsed(now, at).max(FIRST_RETRY)));
        Next::Wait(delays.into_iter().min())
    }

    /// Brings the pod to where its spec wants it, reporting meanwhile. Nothing when the pod is to be stopped.
    async fn work(&mut self, observed: Observed) -> Option<Outcome> {
        let halt = CancellationToken::new();
        let work = do_work(Arc::clone(&self.memory), Arc::clone(&self.pod), observed, halt.clone());
        tokio::pin!(work);
        let mut report_at = Some(Instant::now() + REPORT_DELAY);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return if halt.is_cancelled() { None } else { Some(outcome) },
                Ok(()) = self.inbox.changed() => {
                    self.take_pod();
                    if self.stage != Stage::Syncing {
                        halt.cancel();
                    }
                }
                () = self.memory.wake.notified() => {
                    self.take_ending();
                    if self.stage != Stage::Syncing {
                        halt.cancel();
                    }
                    // The look after the work sees what woke us; this one is only for the report.
                    report_at.get_or_insert(Instant::now() + REPORT_DELAY);
                }
                () = sleep_until(report_at.unwrap_or_else(Instant::now)), if report_at.is_some() => {
                    report_at = None;
                    if let Ok(observed) = self.look().await {
                        self.workers.reconcile(&self.memory, &self.pod, &observed, false);
                        self.report(&observed, false).await;
                    }
                }
            }
        }
    }
}

/// Plans and acts, once.
async fn do_work(memory: Arc<Memory>, pod: Arc<Pod>, observed: Observed, halt: CancellationToken) -> Outcome {
    let failed = Outcome { failed: true, ..Default::default() };
    let host = &memory.host;
    let cgroup_parent = match memory.cgroup_parent(&pod) {
        Ok(parent) => parent,
        Err(error) => {
            let message = format!("unable to ensure pod container exists: {error}");
            host.events.pod(&pod, true, "FailedCreatePodContainer", message);
            return failed;
        }
    };
    let volumes = async { memory.volumes.lock().await.set_up(host, &pod, observed.ips()).await };
    let Some(volumes) = halt.run_until_cancelled(volumes).await else { return failed };
    let volumes: volumes::Paths = match volumes {
        Ok(paths) => paths,
        Err(error) => {
            host.events.pod(&pod, true, "FailedMount", error.to_string());
            return failed;
        }
    };
    let resources = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
    if resources.is_some() || spec(&pod).resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        // Without them the pod would run, and without its devices.
        let message = "Failed to prepare dynamic resources: DRA drivers are not supported by this node's kubelet";
        host.events.pod(&pod, true, "FailedPrepareDynamicResources", message.to_owned());
        return failed;
    }
    let actions = {
        let verdicts = memory.verdicts.lock();
        plan(&pod, &observed, &verdicts)
    };
    if !actions.is_empty() {
        tracing::debug!(pod = pod_text(&pod), ?actions, "acting");
    }
    let act = Act {
        memory: &memory,
        pod: &pod,
        observed: &observed,
        volumes: &volumes,
        cgroup_parent: &cgroup_parent,
        halt: &halt,
    };
    act.perform(&actions).await
}
