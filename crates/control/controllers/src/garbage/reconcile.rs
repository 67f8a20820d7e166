//! Finds out about owners, and deletes, disowns or lets go.

use super::graph::{Graph, Node};
use super::plan::{Decision, Owner, decide};
use super::watch::Watches;
use crate::context::Context;
use crate::discovery::{Resource, discover};
use crate::metadata::Metadata;
use parking_lot::RwLock;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions, Preconditions, Propagation, unless_missing};
use pintle_informer::{Outcome, Queue, Sink, Source, reflect, run_reconciler};
use pintle_types::{GroupVersion, OwnerReference};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const WORKERS: usize = 10;
/// Kinds that nothing owns for long and that come in great numbers.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
const KINDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

struct Collector {
    context: Context,
    graph: Arc<Graph>,
    queue: Queue<String>,
    /// Resources by group and kind.
    kinds: RwLock<HashMap<(String, String), Resource>>,
}

/// Runs the collector until the context's stop.
pub async fn run(context: Context) {
    let (graph, queue) = (Arc::<Graph>::default(), Queue::new());
    let watches = Watches::new(context.client.clone(), graph.clone(), queue.clone(), context.stop.clone());
    let collector = Collector { context: context.clone(), graph, queue: queue.clone(), kinds: RwLock::default() };
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let follow = collector.follow(watches, ready);
    let collect = async {
        // Before everything was read, an owner that was not seen yet would look like one that is gone.
        if is_ready.await.is_ok() {
            let reconcile = |uid| collector.reconcile(uid);
            run_reconciler("generic-garbage-collector", queue, WORKERS, reconcile, context.stop.clone()).await;
        }
    };
    tokio::join!(context.stop.run_until_cancelled(follow), collect);
}

/// Wakes the collector when kinds come or go.
struct KindsChanged(Arc<Notify>);

impl Sink for KindsChanged {
    fn list_begins(&self) {}
    fn listed(&self, _object: &[u8]) {}
    fn list_ends(&self) {
        self.0.notify_one();
    }
    fn event(&self, event: &pintle_client::RawEvent) -> Option<String> {
        if event.event_type != pintle_client::EventType::Bookmark {
            self.0.notify_one();
        }
        event.resource_version().ok()
    }
}

impl Collector {
    /// Keeps a watch on every resource, as kinds come and go.
    async fn follow(&self, mut watches: Watches, ready: tokio::sync::oneshot::Sender<()>) {
        let changed = Arc::new(Notify::new());
        let accept = String::from(crate::metadata::OBJECT);
        let source = Source { path: KINDS.into(), accept: accept.clone(), watch_accept: accept, ..Source::default() };
        let (client, sink) = (self.context.client.clone(), Arc::new(KindsChanged(changed.clone())));
        tokio::spawn(reflect(client, source, sink, self.context.stop.clone()));
        let mut ready = Some(ready);
        loop {
            match discover(&self.context.client).await {
                Ok(found) => {
                    let watched = |resource: &Resource| {
                        let name = (resource.group.as_str(), resource.resource.as_str());
                        resource.can(&["delete", "list", "watch"]) && !IGNORED.contains(&name)
                    };
                    let resources: Vec<Resource> = found.resources.into_iter().filter(watched).collect();
                    let by_kind = resources.iter().map(|r| ((r.group.clone(), r.kind.clone()), r.clone()));
                    *self.kinds.write() = by_kind.collect();
                    watches.follow(resources).await;
                    if let Some(ready) = ready.take() {
                        // The receiver is only gone when the collector is ending.
                        let _ = ready.send(());
                    }
                    changed.notified().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery will be tried again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn reconcile(&self, uid: String) -> Result<Outcome, ClientError> {
        let Some(node) = self.graph.node(&uid) else { return Ok(Outcome::Done) };
        let client = &self.context.client;
        let Some(meta) = Metadata::get(client, &node.place.path()).await?.filter(|meta| meta.uid == uid) else {
            // The watch will tell.
            return Ok(Outcome::Done);
        };
        let deleting = meta.deletion_timestamp.is_some();
        if deleting && meta.has_finalizer("orphan") {
            self.orphan_dependents(&uid).await?;
            self.remove_finalizer(&node, &meta, "orphan").await?;
            return Ok(Outcome::Done);
        }
        if deleting && meta.has_finalizer("foregroundDeletion") {
            return self.finish_foreground(&uid, &node, &meta).await;
        }
        if deleting {
            return Ok(Outcome::Done);
        }
        let mut owners = Vec::with_capacity(meta.owner_references.len());
        for reference in &meta.owner_references {
            owners.push(self.look_up(&node, reference).await?);
        }
        let dependents = self.graph.dependents(&uid);
        match decide(&meta, &owners, !dependents.is_empty()) {
            Decision::Keep => (),
            Decision::Disown(owners) => self.disown(&node, &meta, &owners).await?,
            Decision::Delete(Propagation::Foreground) if closes_circle(&meta, &dependents) => {
                // That this is written wakes the next look, which deletes it.
                self.unblock(&node, &meta).await?;
            }
            Decision::Delete(policy) => {
                let options = DeleteOptions {
                    propagation_policy: Some(policy),
                    preconditions: Preconditions {
                        uid: Some(uid),
                        resource_version: Some(meta.resource_version.clone()),
                    },
                    ..DeleteOptions::default()
                };
                tracing::debug!(path = node.place.path(), ?policy, "deleting what no owner is left of");
                unless_missing(client.delete_path(&node.place.path(), &options).await)?;
            }
        }
        Ok(Outcome::Done)
    }

    /// What became of an owner. Only the server's answer counts.
    async fn look_up(&self, node: &Node, reference: &OwnerReference) -> Result<Owner, ClientError> {
        let Some(version) = GroupVersion::parse(&reference.api_version) else { return Ok(Owner::Unknown) };
        let resource = self.kinds.read().get(&(version.group, reference.kind.clone())).cloned();
        let Some(resource) = resource else { return Ok(Owner::Unknown) };
        if resource.namespaced && node.place.namespace.is_empty() {
            // A cluster-scoped object can't have an owner in a namespace: which one would it be?
            return Ok(Owner::Unknown);
        }
        let path = resource.path(&node.place.namespace, &reference.name);
        let found = Metadata::get(&self.context.client, &path).await?;
        Ok(match found.filter(|meta| meta.uid == reference.uid) {
            None => Owner::Absent,
            Some(meta) if meta.deletion_timestamp.is_some() && meta.has_finalizer("foregroundDeletion") => {
                Owner::Waiting
            }
            Some(_) => Owner::Solid,
        })
    }

    /// Lets an object go when nothing that blocks its deletion is left; else sees to what blocks it.
    async fn finish_foreground(&self, uid: &str, node: &Node, meta: &Metadata) -> Result<Outcome, ClientError> {
        let dependents = self.graph.dependents(uid);
        let blocks = |dependent: &Node| dependent.owners.iter().any(|(owner, blocks)| owner == uid && *blocks);
        if !dependents.iter().any(|(_, dependent)| blocks(dependent)) {
            self.remove_finalizer(node, meta, "foregroundDeletion").await?;
            return Ok(Outcome::Done);
        }
        for (dependent, node) in dependents {
            if !node.deleting_dependents {
                self.queue.add(dependent);
            }
        }
        Ok(Outcome::Done)
    }

    async fn orphan_dependents(&self, uid: &str) -> Result<(), ClientError> {
        for (dependent, node) in self.graph.dependents(uid) {
            let meta = Metadata::get(&self.context.client, &node.place.path()).await?;
            if let Some(meta) = meta.filter(|meta| meta.uid == dependent) {
                self.disown(&node, &meta, &[uid.to_owned()]).await?;
            }
        }
        Ok(())
    }

    /// Takes owners off an object.
    async fn disown(&self, node: &Node, meta: &Metadata, owners: &[String]) -> Result<(), ClientError> {
        let left: Vec<&OwnerReference> =
            meta.owner_references.iter().filter(|reference| !owners.contains(&reference.uid)).collect();
        self.patch_metadata(node, json!({ "ownerReferences": left }), meta).await
    }

    /// Lets the owners of an object go before it.
    async fn unblock(&self, node: &Node, meta: &Metadata) -> Result<(), ClientError> {
        let mut references = meta.owner_references.clone();
        references.iter_mut().for_each(|reference| reference.block_owner_deletion = Some(false));
        self.patch_metadata(node, json!({ "ownerReferences": references }), meta).await
    }

    async fn remove_finalizer(&self, node: &Node, meta: &Metadata, finalizer: &str) -> Result<(), ClientError> {
        let left: Vec<&String> = meta.finalizers.iter().filter(|known| *known != finalizer).collect();
        self.patch_metadata(node, json!({ "finalizers": left }), meta).await
    }

    /// Changes metadata, if it is still what it was.
    async fn patch_metadata(
        &self,
        node: &Node,
        mut metadata: serde_json::Value,
        meta: &Metadata,
    ) -> Result<(), ClientError> {
        metadata["uid"] = json!(meta.uid);
        metadata["resourceVersion"] = json!(meta.resource_version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let result = self.context.client.patch_path(&node.place.path(), &patch, &PatchOptions::default()).await;
        unless_missing(result).map(drop)
    }
}

/// Whether an object that its owner waits for owns, in its turn, what waits for it: each would wait for the other.
fn closes_circle(meta: &Metadata, dependents: &[(String, Node)]) -> bool {
    dependents.iter().any(|(_, dependent)| dependent.deleting_dependents)
        && meta.owner_references.iter().any(|reference| reference.block_owner_deletion == Some(true))
}
