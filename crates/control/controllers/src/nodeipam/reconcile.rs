//! Watches nodes and gives a share to those that have none. A share is free again when its node is gone.

use super::plan::Book;
use crate::context::Context;
use ipnet::IpNet;
use parking_lot::Mutex;
use pintle_client::{ClientError, Patch, PatchOptions, unless_missing};
use pintle_informer::{EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::Node;
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::sync::Arc;

struct Shares {
    context: Context,
    nodes: Informer<Node>,
    /// What nodes have, and what was given away but perhaps not yet seen by the informer.
    book: Arc<Mutex<Book>>,
}

/// Runs the controller until the context's stop. Of `ranges` there is one, or one of each family, the primary one first.
pub async fn run(context: Context, ranges: Vec<IpNet>) {
    let nodes = context.informers.of::<Node>();
    let queue: Queue<ObjectKey> = Queue::new();
    let book = Arc::new(Mutex::new(Book::new(&ranges)));
    let (from_nodes, seen) = (queue.clone(), Arc::clone(&book));
    nodes.on_change(move |change| {
        let node = change.object();
        let shares = change.new().map(|node| shares_of(node)).unwrap_or_default();
        seen.lock().saw(node.name(), &shares);
        // Also what is gone: the worker may be giving it a share.
        if shares.is_empty() {
            from_nodes.add(node.key());
        }
    });
    nodes.synced().await;
    let stop = context.stop.clone();
    let shares = Shares { context, nodes, book };
    // One worker: two nodes must not be given the same share.
    run_reconciler("node-ipam-controller", queue, 1, |key| shares.reconcile(key), stop).await;
}

/// The shares that a node has.
fn shares_of(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    // The first of several is told twice.
    let only = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty));
    spec.pod_cidrs.iter().flatten().chain(only).filter_map(|text| text.parse().ok()).collect()
}

impl Shares {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(node) = self.nodes.get(&key) else {
            self.book.lock().forget(&key.name);
            return Ok(Outcome::Done);
        };
        if !shares_of(&node).is_empty() {
            return Ok(Outcome::Done);
        }
        let shares = self.book.lock().give(&key.name);
        let Some(shares) = shares else {
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.context.recorder.event(&*node, EventType::Normal, "CIDRNotAvailable", message);
            return Ok(Outcome::Done);
        };
        let shares: Vec<String> = shares.iter().map(IpNet::to_string).collect();
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": node.uid() },
            "spec": { "podCIDR": shares.first(), "podCIDRs": shares },
        }));
        let patched = self.context.client.patch::<Node>("", &key.name, patch, &PatchOptions::default()).await;
        unless_missing(patched)?;
        Ok(Outcome::Done)
    }
}
