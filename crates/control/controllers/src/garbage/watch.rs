//! Feeds the graph: one metadata-only watch per resource, begun and ended as resources come and go.

use super::graph::{Graph, Place};
use crate::discovery::Resource;
use crate::metadata::{LIST, Metadata, OBJECT};
use parking_lot::Mutex;
use pintle_client::{Client, EventType, RawEvent};
use pintle_informer::{Queue, Sink, Source, reflect};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Keeps the graph in step with one resource.
struct Feed {
    resource: Arc<Resource>,
    graph: Arc<Graph>,
    queue: Queue<String>,
    state: Mutex<State>,
    synced: tokio::sync::watch::Sender<bool>,
    /// Whether all resources were read once: before that, nearly every owner is absent.
    begun: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// The uids of the objects that exist; the ones seen by an unfinished list apart.
    present: HashSet<String>,
    listed: HashSet<String>,
}

impl Feed {
    fn put(&self, meta: &Metadata) {
        let place =
            Place { resource: self.resource.clone(), namespace: meta.namespace.clone(), name: meta.name.clone() };
        self.graph.put(place, meta).into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn remove(&self, uid: &str) {
        self.graph.remove(uid).into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn decode(&self, object: &[u8]) -> Option<Metadata> {
        Metadata::decode(object)
            .inspect_err(|error| tracing::error!(resource = self.resource.resource, %error, "an object is left out"))
            .ok()
    }
}

impl Sink for Feed {
    fn list_begins(&self) {
        self.state.lock().listed.clear();
    }

    fn listed(&self, object: &[u8]) {
        let Some(meta) = self.decode(object) else { return };
        self.put(&meta);
        let mut state = self.state.lock();
        // Now, not at the list's end, which may never come: the graph has it, and must lose it should the next list.
        state.present.insert(meta.uid.clone());
        state.listed.insert(meta.uid);
    }

    fn list_ends(&self) {
        let gone: Vec<String> = {
            let mut state = self.state.lock();
            let listed = std::mem::take(&mut state.listed);
            let before = std::mem::replace(&mut state.present, listed);
            before.into_iter().filter(|uid| !state.present.contains(uid)).collect()
        };
        gone.iter().for_each(|uid| self.remove(uid));
        self.synced.send_replace(true);
        if self.begun.load(Ordering::Relaxed) {
            // While nobody watched, an owner may have been there, as the server then said, and gone since.
            look_for_owners(&self.graph, &self.queue);
        }
    }

    fn event(&self, event: &RawEvent) -> Option<String> {
        let meta = self.decode(&event.object)?;
        match event.event_type {
            EventType::Bookmark => (),
            EventType::Added | EventType::Modified => {
                self.put(&meta);
                self.state.lock().present.insert(meta.uid);
            }
            EventType::Deleted => {
                self.state.lock().present.remove(&meta.uid);
                self.remove(&meta.uid);
            }
        }
        Some(meta.resource_version)
    }
}

/// Has the objects looked at whose owners were never seen.
fn look_for_owners(graph: &Graph, queue: &Queue<String>) {
    graph.with_absent_owners().into_iter().for_each(|uid| queue.add(uid));
}

/// All watches of the collector.
pub struct Watches {
    pub client: Client,
    pub graph: Arc<Graph>,
    pub queue: Queue<String>,
    pub stop: CancellationToken,
    running: HashMap<Resource, (Arc<Feed>, CancellationToken)>,
    begun: Arc<AtomicBool>,
}

impl Watches {
    pub fn new(client: Client, graph: Arc<Graph>, queue: Queue<String>, stop: CancellationToken) -> Self {
        Self { client, graph, queue, stop, running: HashMap::new(), begun: Arc::default() }
    }

    /// Watches exactly these resources from now on, and waits until each was read once, for some time. What is owned by objects of
    /// a resource that is not watched any more is looked at again, one by one, against the server.
    pub async fn follow(&mut self, resources: Vec<Resource>) {
        let wanted: HashSet<&Resource> = resources.iter().collect();
        self.running.retain(|resource, (feed, stop)| {
            let keep = wanted.contains(resource);
            if !keep {
                stop.cancel();
                let gone = std::mem::take(&mut feed.state.lock().present);
                gone.iter().for_each(|uid| feed.remove(uid));
            }
            keep
        });
        for resource in resources {
            self.running.entry(resource).or_insert_with_key(|resource| {
                let feed = Arc::new(Feed {
                    resource: Arc::new(resource.clone()),
                    graph: self.graph.clone(),
                    queue: self.queue.clone(),
                    state: Mutex::default(),
                    synced: tokio::sync::watch::Sender::new(false),
                    begun: self.begun.clone(),
                });
                let stop = self.stop.child_token();
                let source = Source {
                    path: resource.path("", ""),
                    accept: LIST.into(),
                    watch_accept: OBJECT.into(),
                    ..Source::default()
                };
                tokio::spawn(reflect(self.client.clone(), source, feed.clone(), stop.clone()));
                (feed, stop)
            });
        }
        let read = async {
            for (feed, _) in self.running.values() {
                let mut synced = feed.synced.subscribe();
                // The sender lives as long as the feed.
                let _ = synced.wait_for(|synced| *synced).await;
            }
        };
        if tokio::time::timeout(LONGEST_WAIT, read).await.is_err() {
            // Going on is safe: before anything is deleted the server is asked for its owners.
            tracing::warn!("some resources can't be read; going on without them");
        }
        self.begun.store(true, Ordering::Relaxed);
        // What looked like an absent owner may have been one of a kind that was not watched yet.
        look_for_owners(&self.graph, &self.queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn feed(resource: &str, graph: &Arc<Graph>) -> Feed {
        let resource = Arc::new(Resource {
            group: String::new(),
            version: "v1".into(),
            resource: resource.into(),
            kind: "K".into(),
            namespaced: true,
            verbs: Vec::new(),
        });
        let (state, synced) = (Mutex::default(), tokio::sync::watch::Sender::new(false));
        let begun = Arc::new(AtomicBool::new(true));
        Feed { resource, graph: graph.clone(), queue: Queue::new(), state, synced, begun }
    }

    fn object(name: &str, owners: &[&str]) -> Vec<u8> {
        let owner = |uid: &&str| json!({ "apiVersion": "v1", "kind": "K", "name": uid, "uid": uid });
        let owners: Vec<_> = owners.iter().map(owner).collect();
        let metadata = json!({ "name": name, "namespace": "d", "uid": name, "ownerReferences": owners });
        json!({ "metadata": metadata }).to_string().into()
    }

    #[test]
    fn what_a_broken_list_told_of_is_gone_when_the_next_has_it_not() {
        let graph = Arc::<Graph>::default();
        let (owners, owned) = (feed("owners", &graph), feed("owned", &graph));
        owners.list_begins();
        owners.listed(&object("owner", &[]));
        owned.list_begins();
        owned.listed(&object("dependent", &["owner"]));
        owned.list_ends();
        assert!(graph.with_absent_owners().is_empty());
        // The server went away within the list, and the owner before the next one.
        owners.list_begins();
        owners.list_ends();
        assert_eq!(graph.with_absent_owners(), ["dependent"]);
    }

    #[tokio::test]
    async fn what_is_owned_is_looked_at_again_when_owners_were_not_watched_for_a_while() {
        let graph = Arc::<Graph>::default();
        let (owners, owned) = (feed("owners", &graph), feed("owned", &graph));
        owned.list_begins();
        owned.listed(&object("dependent", &["owner"]));
        owned.list_ends();
        // The server knew the owner, which went before anybody watched.
        assert_eq!(owned.queue.next().await.as_deref(), Some("dependent"));
        owned.queue.done(&"dependent".to_owned());
        owners.list_begins();
        owners.list_ends();
        assert_eq!(owners.queue.next().await.as_deref(), Some("dependent"));
    }
}
