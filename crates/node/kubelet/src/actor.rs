//! The owner of one pod: looks, plans, acts, reports, until the pod is gone from this node.
//!
//! An actor is woken and then looks; nothing that wakes it carries data. It takes the newest pod from its inbox,
//! asks the runtime what is there, and goes one step in its [`Stage`]. While a step takes long, it goes on
//! reporting, and a wish to stop the pod ends the step.

use crate::act::{Act, Outcome};
use crate::api::{ApiError, version};
use crate::backoff::elapsed;
use crate::container_status::Input;
use crate::eviction::Slot;
use crate::host::Host;
use crate::memory::Memory;
use crate::objects_pinned::Pinned;
use crate::observed::Observed;
use crate::plan::plan;
use crate::probe::{ProbeKind, Workers};
use crate::push::{OWN_CONDITIONS, push};
use crate::reference::{pod_text, spec};
use crate::resize::{self, Pending};
use crate::static_pods::is_static;
use crate::status::{EVICTED, Ended, Resize, Surroundings, is_final, status};
use crate::{purge, terminate, termination_message, volumes};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Pod, PodStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long changes are gathered into one report while a step is under way.
const REPORT_DELAY: Duration = Duration::from_millis(150);
/// Between looks for room for a pod that wishes for more.
const DEFERRED_RETRY: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What the API server wants of a pod.
#[derive(Clone)]
pub enum Wanted {
    Present(Arc<Pod>),
    /// A pod of this node's own, and the object that mirrors it in the API, if there is one.
    Static {
        pod: Arc<Pod>,
        mirror: Option<Arc<Pod>>,
    },
    /// The object is gone; whatever is left of the pod goes too.
    Gone,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is to run.
    Syncing,
    /// Its containers are being stopped.
    Terminating,
    /// Nothing of it runs; what it used is taken down.
    Terminated,
    /// It has ended and is kept to be looked at.
    Kept,
    /// Nothing of it is left here.
    Gone,
}

/// The object that mirrors a static pod.
struct Mirror {
    pod: Arc<Pod>,
    /// As the API server has it.
    status: PodStatus,
    pushed: u64,
}

/// What to do after a step.
enum Next {
    Again,
    Wait(Option<Duration>),
}

/// The actor of one pod.
pub struct Actor {
    memory: Arc<Memory>,
    inbox: watch::Receiver<Wanted>,
    pod: Arc<Pod>,
    gone: bool,
    stage: Stage,
    /// As the API server has it: pushed last, or read since.
    status: PodStatus,
    /// Computed last, while it is not known whether the API server has it: a container that ended and is removed would
    /// else look as if it had been lost.
    untold: Option<PodStatus>,
    /// The version that the last push made.
    pushed: u64,
    /// Of a static pod: what its status is told to.
    mirror: Option<Mirror>,
    ended: Option<Ended>,
    /// The pod as it is wished for, while the node does not give it those resources, and why not.
    wished: Option<Arc<Pod>>,
    pending: Option<Pending>,
    /// Where an eviction is left for this pod.
    slot: Slot,
    /// The node does not take this pod; told once.
    refused: Option<Ended>,
    /// Seconds; only ever shortened.
    grace: Option<i64>,
    workers: Workers,
    pinned: Pinned,
    retry: Duration,
}

impl Actor {
    /// The actor of `pod`; `wake` is what others wake it with.
    pub fn new(host: Arc<Host>, pod: Arc<Pod>, inbox: watch::Receiver<Wanted>, wake: Arc<Notify>) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let memory = Arc::new(Memory::new(host, wake));
        remember_verdicts(&memory, &status);
        let pod = Arc::new(resize::restored(&pod, &status));
        memory.host.allocations.note(&pod);
        let stage = if is_final(status.phase.as_deref()) { Stage::Terminating } else { Stage::Syncing };
        Self {
            memory,
            inbox,
            pod,
            gone: false,
            stage,
            status,
            untold: None,
            pushed: 0,
            mirror: None,
            ended: None,
            wished: None,
            pending: None,
            slot: Slot::default(),
            refused: None,
            grace: None,
            workers: Workers::default(),
            pinned: Pinned::default(),
            retry: FIRST_RETRY,
        }
    }

    /// With the slot in which evictions are left, and what the node says when it does not take the pod.
    pub fn admitted(mut self, slot: Slot, refused: Option<Ended>) -> Self {
        self.slot = slot;
        self.refused = refused;
        self
    }

    /// Works until nothing of the pod is left.
    pub async fn run(mut self) {
        if let Some(refused) = self.refused.take() {
            self.refuse(refused).await;
        }
        loop {
            self.take_pod();
            let next = match self.stage {
                Stage::Syncing => self.sync().await,
                Stage::Terminating => self.terminate().await,
                Stage::Terminated => self.take_down().await,
                Stage::Kept => Next::Wait(None),
                Stage::Gone => return,
            };
            match next {
                Next::Again => {}
                Next::Wait(timeout) => self.wait(timeout).await,
            }
        }
    }

    /// Tells that the pod is not taken, and keeps it to be looked at.
    async fn refuse(&mut self, refused: Ended) {
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
        loop {
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

    async fn wait(&mut self, timeout: Option<Duration>) {
        let timer = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.memory.wake.notified() => {}
            // An inbox that was closed never changes again; the actor is about to be dropped then.
            Ok(()) = self.inbox.changed() => {}
            () = timer => {}
        }
    }

    /// Takes the newest pod, and notices that it is to be stopped.
    fn take_pod(&mut self) {
        self.take_eviction();
        let wanted = self.inbox.borrow_and_update().clone();
        match wanted {
            Wanted::Present(pod) => {
                self.adopt_status(&pod);
                self.allocate(pod);
            }
            Wanted::Static { pod, mirror } => {
                self.allocate(pod);
                self.adopt_mirror(mirror);
            }
            Wanted::Gone => self.gone = true,
        }
        if !self.gone && !self.pod.is_deleting() {
            return;
        }
        let wanted = self.wanted_grace();
        self.grace = Some(self.grace.map_or(wanted, |g| g.min(wanted)));
        match self.stage {
            Stage::Syncing => self.stage = Stage::Terminating,
            Stage::Kept => self.stage = Stage::Terminated,
            _ => {}
        }
    }

    /// Takes the pod with the resources that the node gives it.
    fn allocate(&mut self, pod: Arc<Pod>) {
        let before = Arc::clone(&self.pod);
        let (kept, pending) = resize::allocate(&pod, &before, &self.memory.host.allocations);
        self.pending = pending;
        match kept {
            Some(kept) => {
                self.wished = Some(pod);
                self.pod = Arc::new(kept);
            }
            None => {
                self.wished = None;
                self.pod = pod;
            }
        }
        if self.pod.spec != before.spec {
            self.memory.resized();
        }
    }

    /// An eviction ends the pod, unless it has ended already.
    fn take_eviction(&mut self) {
        let Some(eviction) = self.slot.lock().take() else { return };
        if self.stage != Stage::Syncing {
            return;
        }
        self.ended = Some(Ended { reason: EVICTED.into(), message: eviction.message });
        self.grace = Some(self.grace.map_or(eviction.grace, |g| g.min(eviction.grace)));
        self.stage = Stage::Terminating;
    }

    fn wanted_grace(&self) -> i64 {
        let deletion = self.pod.metadata.deletion_grace_period_seconds.filter(|_| self.pod.is_deleting());
        deletion.or(spec(&self.pod).termination_grace_period_seconds).unwrap_or(30).max(1)
    }

    /// What others did to the status is known from here on: the kubelet's own part is told again if it was changed,
    /// such as the readiness of pods on a node that was silent for a while; the rest is left as it is.
    fn adopt_status(&mut self, pod: &Pod) {
        if version(pod) > 0 && version(pod) >= self.pushed {
            self.status = pod.status.clone().unwrap_or_default();
        }
        self.adopt_foreign_conditions(pod);
    }

    fn adopt_mirror(&mut self, mirror: Option<Arc<Pod>>) {
        let Some(pod) = mirror else {
            self.mirror = None;
            return;
        };
        let same = self.mirror.as_ref().filter(|m| m.pod.uid() == pod.uid());
        if same.is_some_and(|m| version(&pod) < m.pushed) {
            return;
        }
        let status = pod.status.clone().unwrap_or_default();
        if self.status == PodStatus::default() && status.start_time.is_some() {
            // A restart of the kubelet: the pod goes on where its mirror says that it was.
            remember_verdicts(&self.memory, &status);
            self.status = status.clone();
        }
        self.mirror = Some(Mirror { pod, status, pushed: 0 });
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

    /// A pod older than the last push still tells of readiness gates.
    fn adopt_foreign_conditions(&mut self, pod: &Pod) {
        let theirs = |c: &pintle_types::k8s::api::core::v1::PodCondition| !OWN_CONDITIONS.contains(&c.type_.as_str());
        let all = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        let foreign: Vec<_> = all.into_iter().flatten().filter(|c| theirs(c)).cloned().collect();
        for status in self.untold.iter_mut().chain([&mut self.status]) {
            let own = status.conditions.get_or_insert_default();
            own.retain(|c| !theirs(c));
            own.extend(foreign.iter().cloned());
        }
    }

    /// One look at the runtime, with the last words of what ended.
    async fn look(&mut self) -> Result<Observed, Next> {
        let uid = self.pod.uid();
        match Observed::of(self.memory.host.runtime.as_ref(), uid).await {
            Ok(mut observed) => {
                termination_message::fill(&mut observed);
                Ok(observed)
            }
            Err(error) => {
                tracing::warn!(%error, pod = pod_text(&self.pod), "the runtime can't be asked; trying again");
                Err(self.later())
            }
        }
    }

    fn later(&mut self) -> Next {
        let delay = self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
        Next::Wait(Some(delay))
    }

    /// Pushes the status if it changed. Returns whether the API server has it now.
    async fn report(&mut self, observed: &Observed, terminal: bool) -> bool {
        let now = self.memory.host.clock.now();
        let new = {
            let failures = self.memory.failures.lock().clone();
            let verdicts = self.memory.verdicts.lock().clone();
            let (pod, old) = (&self.pod, self.untold.as_ref().unwrap_or(&self.status));
            let input = Input { pod, observed, old, failures: &failures, verdicts: &verdicts, terminal };
            let host_ip = &self.memory.host.settings.node_ip;
            let error = self.memory.resize_error.lock().clone();
            let resize = Resize { pending: self.pending.as_ref(), error: error.as_deref() };
            status(&input, &Surroundings { host_ip, now, ended: self.ended.as_ref(), resize })
        };
        if self.gone {
            return true;
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

    // flow: pod 9/16
    async fn sync(&mut self) -> Next {
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
                    self.take_eviction();
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

    async fn terminate(&mut self) -> Next {
        let observed = match self.look().await {
            Ok(observed) => observed,
            Err(next) => return next,
        };
        self.workers.reconcile(&self.memory, &self.pod, &observed, true);
        self.report(&observed, false).await;
        let grace = self.grace;
        let (memory, pod) = (Arc::clone(&self.memory), Arc::clone(&self.pod));
        let kill = async move { terminate::kill_pod(&memory, &pod, &observed, grace).await };
        tokio::pin!(kill);
        let killed = loop {
            tokio::select! {
                biased;
                killed = &mut kill => break killed,
                Ok(()) = self.inbox.changed() => {
                    self.take_pod();
                    if self.grace < grace || (grace.is_none() && self.grace.is_some()) {
                        // Begin again with the shorter time.
                        return Next::Again;
                    }
                }
                () = self.memory.wake.notified() => {
                    if let Ok(observed) = self.look().await {
                        self.report(&observed, false).await;
                    }
                }
            }
        };
        if let Err(error) = killed {
            let message = format!("error killing pod: {error}");
            self.memory.host.events.pod(&self.pod, true, "FailedKillPod", message);
            return self.later();
        }
        self.retry = FIRST_RETRY;
        self.workers.stop_all();
        self.memory.host.allocations.forget(self.pod.uid());
        self.stage = Stage::Terminated;
        Next::Again
    }

    /// Gives back what the pod used, then lets go of the object when that was asked for.
    async fn take_down(&mut self) -> Next {
        let observed = match self.look().await {
            Ok(observed) => observed,
            Err(next) => return next,
        };
        if let Err(error) = purge::volumes_and_cgroup(&self.memory.host, self.pod.uid(), false).await {
            tracing::warn!(error, pod = pod_text(&self.pod), "what a pod used can't be given back yet; trying again");
            return self.later();
        }
        self.pinned = Pinned::default();
        if !self.report(&observed, true).await {
            return self.later();
        }
        if !self.gone && !self.pod.is_deleting() {
            self.stage = Stage::Kept;
            return Next::Wait(None);
        }
        if !self.gone && !self.delete_object().await {
            return self.later();
        }
        if let Err(error) = purge::pod(&self.memory.host, self.pod.uid(), Some(&self.pod)).await {
            tracing::warn!(error, pod = pod_text(&self.pod), "a pod's remains can't be removed yet; trying again");
            return self.later();
        }
        self.stage = Stage::Gone;
        Next::Again
    }

    async fn delete_object(&self) -> bool {
        match self.memory.host.api.delete_pod(self.pod.namespace(), self.pod.name(), self.pod.uid()).await {
            Ok(()) | Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => true,
            Err(error) => {
                tracing::warn!(%error, pod = pod_text(&self.pod), "a pod that has ended can't be deleted; trying again");
                false
            }
        }
    }
}

/// After a restart of the kubelet, what was ready is ready until its probe says otherwise.
fn remember_verdicts(memory: &Memory, status: &PodStatus) {
    let mut verdicts = memory.verdicts.lock();
    let lists = [&status.init_container_statuses, &status.container_statuses];
    for container in lists.into_iter().flat_map(|list| list.iter().flatten()) {
        let id = container.container_id.as_deref().and_then(|id| id.strip_prefix("pintle://"));
        let Some(id) = id.filter(|_| container.state.as_ref().is_some_and(|s| s.running.is_some())) else { continue };
        if container.started == Some(true) {
            verdicts.set(id, ProbeKind::Startup, true);
        }
        if container.ready {
            verdicts.set(id, ProbeKind::Readiness, true);
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
