//! Events sent to a server in batches, with retries.

use crate::event::Event;
use crate::log::errors;
use crate::record::Sink;
use bytes::Bytes;
use pintle_client::Transport;
use pintle_metrics::{Counter, Registry};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How batches are made and sent; the defaults are upstream's.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Path and query of the server's address.
    pub path: String,
    /// Events that may wait to be sent; more are lost, and counted.
    pub buffer: usize,
    pub max_batch: usize,
    /// A batch that is not full is sent after this time.
    pub max_wait: Duration,
    /// The wait before the second try; each further one is half as long again.
    pub initial_backoff: Duration,
    pub tries: u32,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            path: "/".into(),
            buffer: 10_000,
            max_batch: 400,
            max_wait: Duration::from_secs(30),
            initial_backoff: Duration::from_secs(10),
            tries: 5,
        }
    }
}

/// Sends events to a server.
pub struct WebhookSink {
    queue: mpsc::Sender<Arc<Event>>,
    lost: Arc<Counter>,
}

impl WebhookSink {
    /// The sink, and the task that sends until `stop` and everything queued is sent or given up.
    pub fn new(
        options: WebhookOptions,
        transport: Arc<dyn Transport>,
        registry: &Registry,
        stop: CancellationToken,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + use<>) {
        let (queue, receiver) = mpsc::channel(options.buffer.max(1));
        let lost = errors(registry, "webhook");
        let sender = Sender { options, transport, lost: lost.clone(), stop };
        (Arc::new(Self { queue, lost }), sender.run(receiver))
    }
}

impl Sink for WebhookSink {
    fn write(&self, event: &Arc<Event>) {
        if self.queue.try_send(event.clone()).is_err() {
            self.lost.inc();
        }
    }

    fn name(&self) -> &'static str {
        "webhook"
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventList<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: serde_json::Map<String, serde_json::Value>,
    items: &'a [Arc<Event>],
}

struct Sender {
    options: WebhookOptions,
    transport: Arc<dyn Transport>,
    lost: Arc<Counter>,
    stop: CancellationToken,
}

impl Sender {
    async fn run(self, mut receiver: mpsc::Receiver<Arc<Event>>) {
        loop {
            let first = tokio::select! {
                first = receiver.recv() => first,
                () = self.stop.cancelled(), if !receiver.is_closed() => { receiver.close(); continue }
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            self.fill(&mut batch, &mut receiver).await;
            self.send(&batch).await;
        }
    }

    async fn fill(&self, batch: &mut Vec<Arc<Event>>, receiver: &mut mpsc::Receiver<Arc<Event>>) {
        let until = tokio::time::Instant::now() + self.options.max_wait;
        while batch.len() < self.options.max_batch {
            let room = self.options.max_batch - batch.len();
            tokio::select! {
                count = receiver.recv_many(batch, room) => if count == 0 { return },
                () = tokio::time::sleep_until(until) => return,
                () = self.stop.cancelled(), if !receiver.is_closed() => receiver.close(),
            }
        }
    }

    async fn send(&self, batch: &[Arc<Event>]) {
        let list = EventList {
            kind: "EventList",
            api_version: "audit.k8s.io/v1",
            metadata: serde_json::Map::new(),
            items: batch,
        };
        // Events have text keys only: they can be written as JSON.
        let body = Bytes::from(serde_json::to_vec(&list).unwrap_or_default());
        let mut pause = self.options.initial_backoff;
        for attempt in 1..=self.options.tries {
            match self.post(body.clone()).await {
                Ok(()) => return,
                Err(error) if attempt == self.options.tries || self.stop.is_cancelled() => {
                    tracing::error!(error, events = batch.len(), "audit events could not be sent and are lost");
                    self.lost.add(batch.len() as u64);
                    return;
                }
                Err(error) => tracing::warn!(error, attempt, "sending audit events: trying again"),
            }
            // When stopping, the next attempt is at once, and the last.
            let _ = tokio::time::timeout(pause, self.stop.cancelled()).await;
            pause += pause / 2;
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), String> {
        let request = http::Request::post(&self.options.path).header("content-type", "application/json").body(body);
        let response = self.transport.call(request.map_err(|e| e.to_string())?).await.map_err(|e| e.to_string())?;
        if response.status().is_success() { Ok(()) } else { Err(format!("the server answered {}", response.status())) }
    }
}
