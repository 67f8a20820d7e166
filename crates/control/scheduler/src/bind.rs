//! Binds pods in the background: through the API server, or a server that does it in its place.

use crate::dra;
use crate::extender::Extender;
use crate::metrics::{Metrics, OfProfile, Outcome, Point};
use crate::pod::PodInfo;
use crate::queue::Popped;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::storage::Decision;
use crate::volumes::Volumes;
use pintle_client::{Client, ClientError};
use pintle_clock::Clock;
use pintle_informer::{EventType, Recorder};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is to be done before a pod is bound.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) volumes: Option<Decision>,
    /// Of devices.
    pub(crate) claims: Option<dra::Reservation>,
}

/// An attempt that has come to a node.
pub(crate) struct Attempt {
    pub(crate) popped: Popped,
    pub(crate) counts: Arc<OfProfile>,
    pub(crate) since: Instant,
}

/// What binds a pod in the background.
pub(crate) struct Binder {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) extenders: Arc<[Extender]>,
}

impl Binder {
    pub(crate) async fn bind(&self, attempt: &Attempt, node: &str) {
        let (pod, began) = (&attempt.popped.pod, Instant::now());
        let bound = self.tell(pod, node).await;
        attempt.counts.ran(Point::Bind, bound.is_ok(), began);
        match bound {
            Ok(()) => {
                attempt.counts.attempted(Outcome::Scheduled, attempt.since.elapsed());
                self.metrics.scheduled(attempt.popped.arrived.elapsed(), attempt.popped.attempts);
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.recorder.event(&*pod.pod, EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key, node, error, "a binding failed");
                attempt.counts.attempted(Outcome::Error, attempt.since.elapsed());
                dra::unreserve(&self.client, &self.shared, pod).await;
                self.give_up(pod);
            }
        }
    }

    /// By the first server that binds such pods, else by the API server.
    async fn tell(&self, pod: &PodInfo, node: &str) -> Result<(), String> {
        let binds = |e: &&Extender| !e.settings.bind.is_empty() && e.cares_for(pod);
        for extender in self.extenders.iter().filter(binds) {
            match extender.bind(pod, node).await {
                Err(error) if extender.settings.ignorable => {
                    tracing::warn!(pod = %pod.key, %error, "an extender that may be ignored did not bind a pod");
                }
                bound => return bound.map_err(|error| error.to_string()),
            }
        }
        let began = Instant::now();
        let bound = post_binding(&self.client, pod, node).await;
        self.metrics.timings.bound(bound.is_ok(), began);
        bound.map_err(|error| error.to_string())
    }

    /// The pod has no node after all. One that is gone leaves the queue by its own event.
    pub(crate) fn give_up(&self, pod: &Arc<PodInfo>) {
        self.shared.assumed.lock().remove(&pod.key);
        self.shared.snapshot.lock().remove_pod(&pod.key);
        self.shared.queue.retry(&pod.key);
        // What it was to take is anybody's.
        self.shared.promise_void(pod);
    }
}

/// What is to be done about the pod's claims on its node; nothing when they are bound, or there are none.
pub(crate) fn decide(pod: &PodInfo, node: &str, snapshot: &mut Snapshot) -> Option<Decision> {
    let volumes = Volumes::new(pod, snapshot.storage()).ok()??;
    let decision = volumes.place(snapshot.node(node)?).ok()?;
    if volumes.is_bound() {
        return None;
    }
    snapshot.storage_mut().reserve(&decision, node);
    Some(decision)
}

async fn post_binding(client: &Client, pod: &PodInfo, node: &str) -> Result<(), ClientError> {
    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "namespace": namespace, "name": name, "uid": pod.pod.uid() },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    client.create_sub::<Pod>(namespace, name, "binding", &binding).await.map(drop)
}
