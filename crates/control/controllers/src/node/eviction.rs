//! Deletes pods from nodes with `NoExecute` taints, when the time is over for which they bear them.

use super::plan::{Bears, bears};
use super::reconcile::{BY_NODE, node_of};
use crate::context::Context;
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions, unless_missing};
use pintle_clock::Timestamp;
use pintle_informer::{EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Node, Pod, Taint};
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::collections::HashMap;
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
        // Taints that are gone count too: what pods have borne of them is forgotten.
        if old.unwrap_or_default() != new {
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
    let borne = Borne::default();
    let reconcile = |key| reconcile(&context, &nodes, &pods, &borne, key);
    run_reconciler("taint-eviction-controller", queue, WORKERS, reconcile, context.stop.clone()).await;
}

/// Since when pods bear the taints of their nodes, by key and uid: taints that people add do not say since when they
/// are there. Whoever is in here has a reconciliation to come, which takes it out when it is gone.
type Borne = Mutex<HashMap<ObjectKey, (String, Timestamp)>>;

async fn reconcile(
    context: &Context,
    nodes: &Informer<Node>,
    pods: &Informer<Pod>,
    borne: &Borne,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let pod = pods.get(&key).filter(|pod| !pod.is_deleting());
    let taints = pod.as_ref().and_then(|pod| nodes.get(&ObjectKey::new("", pods::node_name(pod))));
    let taints = taints.map(|node| executing(&node)).unwrap_or_default();
    let tolerations = pod.as_ref().and_then(|pod| pod.spec.as_ref()?.tolerations.clone()).unwrap_or_default();
    let wait = match (&pod, bears(&tolerations, &taints)) {
        (None, _) | (_, Bears::Forever) => None,
        (_, Bears::Not) => Some(Duration::ZERO),
        (Some(pod), Bears::For(time)) => Some(time.saturating_sub(time_borne(context, borne, pod, &taints))),
    };
    let (Some(pod), Some(wait)) = (pod, wait) else {
        borne.lock().remove(&key);
        return Ok(Outcome::Done);
    };
    if !wait.is_zero() {
        return Ok(Outcome::After(wait));
    }
    evict(context, &pod).await?;
    borne.lock().remove(&key);
    Ok(Outcome::Done)
}

/// How long a pod has borne these taints: since the last one says that it was added, if all do, or since that was seen.
fn time_borne(context: &Context, borne: &Borne, pod: &Pod, taints: &[Taint]) -> Duration {
    let now = context.now();
    let told: Option<Vec<_>> = taints.iter().map(|taint| taint.time_added.as_ref().map(|time| time.0)).collect();
    let since = match told.and_then(|all| all.into_iter().max()) {
        Some(since) => since,
        None => {
            let mut borne = borne.lock();
            let first = borne.entry(pod.key()).or_insert_with(|| (pod.uid().to_owned(), now));
            if first.0 != pod.uid() {
                *first = (pod.uid().to_owned(), now);
            }
            first.1
        }
    };
    let passed = crate::context::seconds_between(since, now);
    Duration::from_secs(u64::try_from(passed).unwrap_or_default())
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
    let told = client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await;
    if unless_missing(told)?.is_none() {
        return Ok(());
    }
    match client.delete::<Pod>(pod.namespace(), pod.name(), &DeleteOptions::of_uid(pod.uid())).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
