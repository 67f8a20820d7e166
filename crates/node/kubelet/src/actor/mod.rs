//! The owner of one pod: looks, plans, acts, reports, until the pod is gone from this node.
//!
//! An actor is woken and then looks; nothing that wakes it carries data. It takes the newest pod from its inbox,
//! asks the runtime what is there, and goes one step in its [`Stage`]. While a step takes long, it goes on
//! reporting, and a wish to stop the pod ends the step.

mod end;
mod report;
mod sync;

use crate::ending::{Ending, Slot};
use crate::host::Host;
use crate::memory::Memory;
use crate::objects_pinned::Pinned;
use crate::observed::Observed;
use crate::placement;
use crate::preemption::Room;
use crate::probe::Workers;
use crate::reference::{own_grace, pod_text};
use crate::resize::{self, Pending};
use crate::static_pods::is_static;
use crate::status::{Ended, is_final};
use crate::termination_message;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Pod, PodStatus};
use report::{Mirror, remember_verdicts};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

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

/// What a node says to a pod: the room that others make for it first, if they have to, or why it is not taken.
pub type Admission = Result<Option<Room>, Ended>;

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
    /// Where an ending that the node wants is left for this pod.
    slot: Slot,
    /// Kept for one who waits for the end of this pod.
    held: Option<mpsc::Sender<Infallible>>,
    /// What the node said when the pod was new; heeded once.
    admission: Admission,
    /// Seconds; only ever shortened.
    grace: Option<i64>,
    workers: Workers,
    pinned: Pinned,
    retry: Duration,
    /// When it was seen first, until it runs; one that ran before the kubelet did is not new.
    new_since: Option<Instant>,
    /// What the next step is for, in upstream's words.
    cause: &'static str,
}

impl Actor {
    /// The actor of `pod`; `wake` is what others wake it with.
    pub fn new(host: Arc<Host>, pod: Arc<Pod>, inbox: watch::Receiver<Wanted>, wake: Arc<Notify>) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let memory = Arc::new(Memory::new(host, wake));
        remember_verdicts(&memory, &status);
        let pod = Arc::new(resize::restored(&pod, &status));
        memory.host.allocations.note(&pod);
        let has_run = matches!(status.phase.as_deref(), Some("Running")) || is_final(status.phase.as_deref());
        let new_since = (!has_run).then(Instant::now);
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
            held: None,
            admission: Ok(None),
            grace: None,
            workers: Workers::default(),
            pinned: Pinned::default(),
            retry: FIRST_RETRY,
            new_since,
            cause: "create",
        }
    }

    /// With the slot in which endings are left, and what the node says to the pod.
    pub fn admitted(mut self, slot: Slot, admission: Admission) -> Self {
        self.slot = slot;
        self.admission = admission;
        self
    }

    /// Works until nothing of the pod is left.
    pub async fn run(mut self) {
        if let Err(refused) = self.be_admitted().await {
            self.refuse(refused).await;
        }
        loop {
            self.take_pod();
            let (stage, began) = (self.stage, Instant::now());
            let next = match stage {
                Stage::Syncing => self.sync().await,
                Stage::Terminating => self.terminate().await,
                Stage::Terminated => self.take_down().await,
                Stage::Kept => {
                    self.held = None;
                    self.tell_mirror().await
                }
                Stage::Gone => return,
            };
            self.note_step(stage, began.elapsed());
            match next {
                Next::Again => {}
                Next::Wait(timeout) => self.wait(timeout).await,
            }
        }
    }

    /// Heeds what the node says to the pod, once there is room for it.
    async fn be_admitted(&mut self) -> Result<(), Ended> {
        match std::mem::replace(&mut self.admission, Ok(None)) {
            Ok(room) => {
                if let Some(room) = room {
                    self.wait_for(room).await;
                }
                let refused = placement::admit(&self.memory.host, &self.pod).await;
                refused.filter(|_| self.stage == Stage::Syncing).map_or(Ok(()), Err)
            }
            // Nothing but its sandbox tells that a static pod was here before the kubelet started again.
            Err(_) if is_static(&self.pod) && self.has_sandbox().await => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    async fn has_sandbox(&mut self) -> bool {
        self.look().await.is_ok_and(|observed| !observed.sandboxes.is_empty())
    }

    /// Waits until others have made room for the pod, or until it is to be stopped itself.
    async fn wait_for(&mut self, room: Room) {
        let room = room.wait();
        tokio::pin!(room);
        while self.stage == Stage::Syncing {
            tokio::select! {
                () = &mut room => return,
                Ok(()) = self.inbox.changed() => self.take_pod(),
                () = self.memory.wake.notified() => self.take_ending(),
            }
        }
    }

    /// Counts a step with the time that it took.
    fn note_step(&self, stage: Stage, took: Duration) {
        let cause = match stage {
            Stage::Syncing => self.cause,
            Stage::Terminating => "kill",
            _ => return,
        };
        self.memory.host.measures.pod_worker.with(&[cause]).observe(took.as_secs_f64());
    }

    async fn wait(&mut self, timeout: Option<Duration>) {
        let timer = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        self.cause = tokio::select! {
            () = self.memory.wake.notified() => "sync",
            // An inbox that was closed never changes again; the actor is about to be dropped then.
            Ok(()) = self.inbox.changed() => "update",
            () = timer => "sync",
        };
    }

    /// Takes the newest pod, and notices that it is to be stopped.
    fn take_pod(&mut self) {
        self.take_ending();
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

    /// Ends the pod as the node wants it, unless it has ended already. One that is ending may have to hasten.
    fn take_ending(&mut self) {
        let Some(Ending { ended, grace, hastens, held }) = self.slot.lock().take() else { return };
        match self.stage {
            Stage::Syncing => self.ended = Some(ended),
            Stage::Terminating if hastens => {
                if self.ended.is_none() && !is_final(self.status.phase.as_deref()) {
                    self.ended = Some(ended);
                }
            }
            Stage::Terminated if hastens => {
                self.held = held;
                return;
            }
            _ => return,
        }
        self.held = held;
        self.grace = Some(self.grace.map_or(grace, |g| g.min(grace)));
        self.stage = Stage::Terminating;
    }

    fn wanted_grace(&self) -> i64 {
        let deletion = self.pod.metadata.deletion_grace_period_seconds.filter(|_| self.pod.is_deleting());
        deletion.unwrap_or_else(|| own_grace(&self.pod)).max(1)
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
}
