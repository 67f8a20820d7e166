//! Watches nodes and gives a share to those that have none. A share is free again when its node is gone.

use super::plan::free_shares;
use crate::context::Context;
use ipnet::IpNet;
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
    /// One, or one of each family, the primary one first.
    ranges: Vec<IpNet>,
    /// Given away, but perhaps not yet seen by the informer.
    given: Mutex<HashMap<String, Vec<IpNet>>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context, ranges: Vec<IpNet>) {
    let nodes = context.informers.of::<Node>();
    let queue: Queue<ObjectKey> = Queue::new();
    let from_nodes = queue.clone();
    nodes.on_change(move |change| from_nodes.add(change.object().key()));
    nodes.synced().await;
    let stop = context.stop.clone();
    let shares = Shares { context, nodes, ranges, given: Mutex::default() };
    // One worker: two nodes must not be given the same share.
    run_reconciler("node-ipam-controller", queue, 1, |key| shares.reconcile(key), stop).await;
}

/// The shares that a node has.
fn shares_of(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let several = spec.pod_cidrs.iter().flatten();
    // The first one of them is told twice.
    several.chain(&spec.pod_cidr).filter_map(|text| text.parse().ok()).collect()
}

impl Shares {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(node) = self.nodes.get(&key) else {
            self.given.lock().remove(&key.name);
            return Ok(Outcome::Done);
        };
        if !shares_of(&node).is_empty() {
            return Ok(Outcome::Done);
        }
        let Some(shares) = self.choose(&key.name) else {
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
        match patched {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }

    /// The shares that the node was given before, or free ones.
    fn choose(&self, name: &str) -> Option<Vec<IpNet>> {
        let mut given = self.given.lock();
        if let Some(shares) = given.get(name) {
            return Some(shares.clone());
        }
        let mut taken: Vec<IpNet> = self.nodes.list().iter().flat_map(|node| shares_of(node)).collect();
        taken.extend(given.values().flatten());
        let shares = free_shares(&self.ranges, &taken)?;
        given.insert(name.to_owned(), shares.clone());
        Some(shares)
    }
}
