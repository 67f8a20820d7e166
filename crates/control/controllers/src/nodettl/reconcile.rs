//! Watches nodes, counts them, and writes the annotation where it is not what their number asks for.

use super::plan::{row, seconds};
use crate::context::Context;
use pintle_client::{ClientError, Patch, PatchOptions, unless_missing};
use pintle_informer::{Change, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::Node;
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const TTL: &str = "node.alpha.kubernetes.io/ttl";

#[derive(Default)]
struct Size {
    nodes: AtomicUsize,
    row: AtomicUsize,
}

impl Size {
    /// The seconds for the nodes counted so far.
    fn seconds(&self) -> u32 {
        let now = row(self.nodes.load(Ordering::Relaxed), self.row.load(Ordering::Relaxed));
        self.row.store(now, Ordering::Relaxed);
        seconds(now)
    }
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let nodes = context.informers.of::<Node>();
    let queue: Queue<ObjectKey> = Queue::new();
    let size = Arc::new(Size::default());
    let (from_nodes, counted) = (queue.clone(), size.clone());
    nodes.on_change(move |change| {
        match change {
            Change::Added(_) => drop(counted.nodes.fetch_add(1, Ordering::Relaxed)),
            Change::Deleted(_) => drop(counted.nodes.fetch_sub(1, Ordering::Relaxed)),
            Change::Modified(..) => {}
        }
        from_nodes.add(change.object().key());
    });
    nodes.synced().await;
    let reconcile = |key| reconcile(&context, &nodes, &size, key);
    run_reconciler("ttl-controller", queue, 1, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    nodes: &Informer<Node>,
    size: &Size,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(node) = nodes.get(&key) else { return Ok(Outcome::Done) };
    let wanted = size.seconds().to_string();
    if node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(TTL)) == Some(&wanted) {
        return Ok(Outcome::Done);
    }
    let patch = Patch::Strategic(json!({"metadata": {"annotations": {TTL: wanted}}}));
    unless_missing(context.client.patch::<Node>("", &key.name, patch, &PatchOptions::default()).await)?;
    Ok(Outcome::Done)
}
