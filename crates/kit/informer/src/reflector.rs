//! List, then watch, then resume: keeps a sink in step with a collection. Knows nothing of what the objects are.

use futures::StreamExt;
use pintle_client::{Client, ClientError, ListOptions, RawEvent, WatchOptions};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A collection to follow.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Such as `/api/v1/pods`.
    pub path: String,
    /// The media type to ask for in lists.
    pub accept: String,
    /// The media type to ask for in watches.
    pub watch_accept: String,
    /// In query form.
    pub label_selector: String,
    /// In query form.
    pub field_selector: String,
}

/// Takes what a reflector reads. Called from one task, never twice at a time.
pub trait Sink: Send + Sync + 'static {
    /// A list is about to be read; what an unfinished one told is void.
    fn list_begins(&self);
    /// One object of the list.
    fn listed(&self, object: &[u8]);
    /// The list is complete: what was not in it no longer exists.
    fn list_ends(&self);
    /// A change, or a bookmark. Returns the object's resourceVersion.
    fn event(&self, event: &RawEvent) -> Option<String>;
}

/// Follows a collection until `stop`.
pub async fn reflect(client: Client, source: Source, sink: Arc<dyn Sink>, stop: CancellationToken) {
    let mut reflector = Reflector { client, source, sink, state: State::List, delay: Backoff::default() };
    let _ended = stop.run_until_cancelled(reflector.run()).await;
}

enum State {
    /// Nothing is known that a watch could resume from.
    List,
    /// Everything up to this version was told.
    Watch(String),
}

struct Reflector {
    client: Client,
    source: Source,
    sink: Arc<dyn Sink>,
    state: State,
    delay: Backoff,
}

impl Reflector {
    async fn run(&mut self) {
        loop {
            let began = Instant::now();
            let result = self.step().await;
            let Err(error) = result else {
                // A watch that the server ends at once, again and again, must not become a loop without pause.
                if began.elapsed() < Duration::from_secs(1) && matches!(self.state, State::Watch(_)) {
                    self.delay.wait().await;
                }
                continue;
            };
            if error.is_gone() {
                tracing::debug!(path = self.source.path, "the version to resume from is gone; listing again");
                self.state = State::List;
            } else {
                let path = &self.source.path;
                match self.delay.attempts {
                    // A server that just starts or restarts is nothing to warn of.
                    0..4 => tracing::debug!(path, %error, "will try again"),
                    _ => tracing::warn!(path, %error, "will try again"),
                }
            }
            self.delay.wait().await;
        }
    }

    async fn step(&mut self) -> Result<(), ClientError> {
        match &self.state {
            State::List => {
                let version = self.list().await?;
                self.delay.reset();
                self.state = State::Watch(version);
                self.watch().await
            }
            State::Watch(_) => self.watch().await,
        }
    }

    async fn list(&self) -> Result<String, ClientError> {
        let options = ListOptions {
            label_selector: self.source.label_selector.clone(),
            field_selector: self.source.field_selector.clone(),
            ..ListOptions::default()
        };
        self.sink.list_begins();
        let mut token = String::new();
        loop {
            let page = self.client.list_page(&self.source.path, &options, &token, &self.source.accept).await?;
            for item in &page.items {
                self.sink.listed(item);
            }
            if page.continue_token.is_empty() {
                self.sink.list_ends();
                return Ok(page.resource_version);
            }
            token = page.continue_token;
        }
    }

    /// Watches until the server ends it.
    async fn watch(&mut self) -> Result<(), ClientError> {
        let State::Watch(version) = &self.state else { return Ok(()) };
        let options = WatchOptions {
            label_selector: self.source.label_selector.clone(),
            field_selector: self.source.field_selector.clone(),
            resource_version: version.clone(),
            bookmarks: true,
            timeout_seconds: rand::rng().random_range(300..600),
            ..WatchOptions::default()
        };
        let mut events = self.client.watch_path(&self.source.path, &options, &self.source.watch_accept).await?;
        while let Some(event) = events.next().await {
            if let Some(version) = self.sink.event(&event?) {
                self.state = State::Watch(version);
            }
            self.delay.reset();
        }
        Ok(())
    }
}

/// Pauses that double from 50 ms to 30 s, spread so that many reflectors do not return at the same moment.
#[derive(Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    fn reset(&mut self) {
        self.attempts = 0;
    }

    async fn wait(&mut self) {
        let base = Duration::from_millis(50).saturating_mul(1 << self.attempts.min(10)).min(Duration::from_secs(30));
        self.attempts += 1;
        let spread = rand::rng().random_range(0.7..1.3);
        tokio::time::sleep(base.mul_f64(spread)).await;
    }
}
