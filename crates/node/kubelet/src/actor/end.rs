//! The last steps of a pod: its containers are stopped, what it used is given back, and its object is let go.

use super::{Actor, FIRST_RETRY, Next, Stage};
use crate::api::ApiError;
use crate::objects_pinned::Pinned;
use crate::reference::pod_text;
use crate::{placement, purge, terminate};
use pintle_types::Kind;
use std::sync::Arc;

impl Actor {
    pub(super) async fn terminate(&mut self) -> Next {
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
                    if self.hastens(grace) {
                        return Next::Again;
                    }
                }
                () = self.memory.wake.notified() => {
                    self.take_ending();
                    if self.hastens(grace) {
                        return Next::Again;
                    }
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
        placement::release(&self.memory.host, self.pod.uid()).await;
        self.stage = Stage::Terminated;
        Next::Again
    }

    /// Whether the pod has less time now: its end begins again with that.
    fn hastens(&self, before: Option<i64>) -> bool {
        self.grace < before || (before.is_none() && self.grace.is_some())
    }

    /// Gives back what the pod used, then lets go of the object when that was asked for.
    pub(super) async fn take_down(&mut self) -> Next {
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
