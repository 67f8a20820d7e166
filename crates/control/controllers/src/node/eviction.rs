//! Deletes pods from nodes with `NoExecute` taints, when the time is over for which they bear them.

use super::plan::{Bears, bears};
use super::reconcile::{BY_NODE, node_of};
use crate::context::Context;
use crate::pods;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions};
use pintle_informer::{EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Node, Pod, Taint};
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::time::Duration;

const WORKERS: usize = 4;

fn executing(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let (nodes, pods) = (context.informers.of::<Node>(), context.informers.of::<Pod>());
    pods.index(BY_NODE, node_of);
    let queue: Queue<ObjectKey> = Queue::new();
    let (of_node, from_nodes) = (pods.clone(), queue.clone());
    nodes.on_change(move |change| {
        let taints = |node| executing(node);
        let (old, new) = (change.old().map(|n| taints(n)), change.new().map(|n| taints(n)).unwrap_or_default());
        if old.unwrap_or_default() != new && !new.is_empty() {
            of_node.by_index(BY_NODE, change.object().name()).iter().for_each(|pod| from_nodes.add(pod.key()));
        }
    });
    let (of_pod, from_pods) = (nodes.clone(), queue.clone());
    pods.on_change(move |change| {
        let Some(pod) = change.new() else { return };
        let moved = change.old().is_none_or(|old| {
            let look = |pod: &Pod| pod.spec.as_ref().map(|s| (s.node_name.clone(), s.tolerations.clone()));
            look(old) != look(pod)
        });
        let node = ObjectKey::new("", pods::node_name(pod));
        if moved && of_pod.get(&node).is_some_and(|node| !executing(&node).is_empty()) {
            from_pods.add(pod.key());
        }
    });
    nodes.synced().await;
    pods.synced().await;
    let reconcile = |key| reconcile(&context, &nodes, &pods, key);
    run_reconciler("taint-eviction-controller", queue, WORKERS, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    nodes: &Informer<Node>,
    pods: &Informer<Pod>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(pod) = pods.get(&key).filter(|pod| !pod.is_deleting()) else { return Ok(Outcome::Done) };
    let Some(node) = nodes.get(&ObjectKey::new("", pods::node_name(&pod))) else { return Ok(Outcome::Done) };
    let taints = executing(&node);
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let wait = match bears(&tolerations, &taints) {
        Bears::Forever => return Ok(Outcome::Done),
        Bears::Not => Duration::ZERO,
        Bears::For(time) => {
            let since = taints.iter().filter_map(|taint| taint.time_added.as_ref()).map(|time| time.0).max();
            let passed = since.map_or(0, |since| crate::context::seconds_between(since, context.now()));
            time.saturating_sub(Duration::from_secs(u64::try_from(passed).unwrap_or_default()))
        }
    };
    if !wait.is_zero() {
        return Ok(Outcome::After(wait));
    }
    evict(context, &pod).await?;
    Ok(Outcome::Done)
}

async fn evict(context: &Context, pod: &Pod) -> Result<(), ClientError> {
    let message = format!("Marking for deletion Pod {}", pod.key());
    context.recorder.event(pod, EventType::Normal, "TaintManagerEviction", message);
    disrupt(context, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint").await
}

/// Writes down why the pod goes, for those who watch it, and deletes it. One that is gone is fine.
pub async fn disrupt(context: &Context, pod: &Pod, reason: &str, message: &str) -> Result<(), ClientError> {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": context.time(),
    });
    let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } });
    let (client, options) = (&context.client, PatchOptions::status());
    match client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other.map(drop)?,
    }
    match client.delete::<Pod>(pod.namespace(), pod.name(), &DeleteOptions::of_uid(pod.uid())).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
