//! Watches nodes and gives a share to those that have none. A share is free again when its node is gone.

use super::plan::free_share;
use crate::context::Context;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_informer::{EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::Node;
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::collections::HashMap;

struct Shares {
    context: Context,
    nodes: Informer<Node>,
    range: Ipv4Net,
    /// Given away, but perhaps not yet seen by the informer.
    given: Mutex<HashMap<String, Ipv4Net>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context, range: Ipv4Net) {
    let nodes = context.informers.of::<Node>();
    let queue: Queue<ObjectKey> = Queue::new();
    let from_nodes = queue.clone();
    nodes.on_change(move |change| from_nodes.add(change.object().key()));
    nodes.synced().await;
    let stop = context.stop.clone();
    let shares = Shares { context, nodes, range, given: Mutex::default() };
    // One worker: two nodes must not be given the same share.
    run_reconciler("node-ipam-controller", queue, 1, |key| shares.reconcile(key), stop).await;
}

/// The share that a node has.
fn share_of(node: &Node) -> Option<Ipv4Net> {
    node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()
}

impl Shares {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(node) = self.nodes.get(&key) else {
            self.given.lock().remove(&key.name);
            return Ok(Outcome::Done);
        };
        if share_of(&node).is_some() {
            return Ok(Outcome::Done);
        }
        let Some(share) = self.choose(&key.name) else {
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.context.recorder.event(&*node, EventType::Normal, "CIDRNotAvailable", message);
            return Ok(Outcome::Done);
        };
        let share = share.to_string();
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": node.uid() },
            "spec": { "podCIDR": share, "podCIDRs": [share] },
        }));
        let patched = self.context.client.patch::<Node>("", &key.name, patch, &PatchOptions::default()).await;
        match patched {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }

    /// The share that the node was given before, or a free one.
    fn choose(&self, name: &str) -> Option<Ipv4Net> {
        let mut given = self.given.lock();
        if let Some(share) = given.get(name) {
            return Some(*share);
        }
        let mut taken: Vec<Ipv4Net> = self.nodes.list().iter().filter_map(|node| share_of(node)).collect();
        taken.extend(given.values());
        let share = free_share(self.range, &taken)?;
        given.insert(name.to_owned(), share);
        Some(share)
    }
}
