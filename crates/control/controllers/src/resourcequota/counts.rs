//! How many objects there are of kinds that quotas only count: one metadata-only watch per kind, while a quota names it.

use crate::discovery::Resource;
use crate::metadata::{LIST, Metadata, OBJECT};
use parking_lot::Mutex;
use pintle_client::{Client, EventType, RawEvent};
use pintle_informer::{Sink, Source, reflect};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Told the namespace in which an object went, or nothing when all may have changed.
type Freed = Arc<dyn Fn(Option<&str>) + Send + Sync>;

/// A server that can't list a kind for so long is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Group and plural name.
type Name = (String, String);

/// The names of one kind's objects by namespace.
type Names = HashMap<String, HashSet<String>>;

struct Feed {
    resource: String,
    freed: Freed,
    state: Mutex<State>,
    synced: tokio::sync::watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    present: Names,
    /// What an unfinished list showed so far.
    listed: Names,
}

impl Feed {
    fn decode(&self, object: &[u8]) -> Option<Metadata> {
        Metadata::decode(object)
            .inspect_err(|error| tracing::error!(resource = self.resource, %error, "an object is not counted"))
            .ok()
    }
}

impl Sink for Feed {
    fn list_begins(&self) {
        self.state.lock().listed.clear();
    }

    fn listed(&self, object: &[u8]) {
        if let Some(meta) = self.decode(object) {
            self.state.lock().listed.entry(meta.namespace).or_default().insert(meta.name);
        }
    }

    fn list_ends(&self) {
        let mut state = self.state.lock();
        state.present = std::mem::take(&mut state.listed);
        drop(state);
        // Whoever waits for the first list counts by itself; later ones may have missed what went.
        if self.synced.send_replace(true) {
            (self.freed)(None);
        }
    }

    fn event(&self, event: &RawEvent) -> Option<String> {
        let meta = self.decode(&event.object)?;
        match event.event_type {
            EventType::Bookmark => {}
            EventType::Added | EventType::Modified => {
                self.state.lock().present.entry(meta.namespace).or_default().insert(meta.name);
            }
            EventType::Deleted => {
                let mut state = self.state.lock();
                let left = state.present.get_mut(&meta.namespace).map(|names| {
                    names.remove(&meta.name);
                    names.len()
                });
                if left == Some(0) {
                    state.present.remove(&meta.namespace);
                }
                drop(state);
                (self.freed)(Some(&meta.namespace));
            }
        }
        Some(meta.resource_version)
    }
}

/// The watches of all kinds that are counted now.
pub(super) struct Counts {
    client: Client,
    stop: CancellationToken,
    freed: Freed,
    running: Mutex<HashMap<Name, (Arc<Feed>, CancellationToken)>>,
}

impl Counts {
    pub fn new(client: Client, stop: CancellationToken, freed: Freed) -> Self {
        Self { client, stop, freed, running: Mutex::default() }
    }

    /// Ends the watches of kinds that no quota names any more.
    pub fn keep(&self, wanted: &HashSet<Name>) {
        self.running.lock().retain(|name, (_, stop)| {
            let keep = wanted.contains(name);
            if !keep {
                stop.cancel();
            }
            keep
        });
    }

    /// How many objects of a kind there are in a namespace. Waits for the first list of a kind that is new here;
    /// nothing when that can't be had.
    pub async fn of(&self, resource: &Resource, namespace: &str) -> Option<usize> {
        let feed = self.feed(resource);
        let mut synced = feed.synced.subscribe();
        let first = tokio::time::timeout(LONGEST_WAIT, synced.wait_for(|synced| *synced)).await;
        matches!(first, Ok(Ok(_))).then(|| feed.state.lock().present.get(namespace).map_or(0, HashSet::len))
    }

    fn feed(&self, resource: &Resource) -> Arc<Feed> {
        let name = (resource.group.clone(), resource.resource.clone());
        let begin = || {
            let feed = Arc::new(Feed {
                resource: resource.resource.clone(),
                freed: self.freed.clone(),
                state: Mutex::default(),
                synced: tokio::sync::watch::Sender::new(false),
            });
            let source = Source {
                path: resource.path("", ""),
                accept: LIST.into(),
                watch_accept: OBJECT.into(),
                ..Source::default()
            };
            let stop = self.stop.child_token();
            tokio::spawn(reflect(self.client.clone(), source, feed.clone(), stop.clone()));
            (feed, stop)
        };
        self.running.lock().entry(name).or_insert_with(begin).0.clone()
    }
}
