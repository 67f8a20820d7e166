//! Watches claims and the pods that use them.

use super::plan::finalizers;
use crate::context::Context;
use pintle_client::{ClientError, unless_missing};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use pintle_types::{Kind, ObjectKey};

const FINALIZER: &str = "kubernetes.io/pvc-protection";
/// The index of pods that have a node by their claims.
pub const BY_CLAIM: &str = "protected-claim";

/// The claims of a pod, as `namespace/name`. A kubelet only sees pods that have a node, and starts none whose claim is
/// being deleted: until then a pod does not count.
pub fn claims_of_placed(pod: &Pod) -> Vec<String> {
    let placed = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    if !placed {
        return Vec::new();
    }
    let used = pintle_storage::claims_of(pod).into_iter();
    used.map(|used| format!("{}/{}", pod.namespace(), used.name)).collect()
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let (all, pods) = (context.informers.of::<PersistentVolumeClaim>(), context.informers.of::<Pod>());
    pods.index(BY_CLAIM, claims_of_placed);
    let queue: Queue<ObjectKey> = Queue::new();
    let (from_claims, from_pods) = (queue.clone(), queue.clone());
    all.on_change(move |change| from_claims.add(change.object().key()));
    // Pods that end or go may have been the last.
    pods.on_change(move |change| {
        if change.new().is_none() {
            for claim in claims_of_placed(change.object()) {
                let (namespace, name) = claim.split_once('/').unwrap_or_default();
                from_pods.add(ObjectKey { namespace: namespace.into(), name: name.into() });
            }
        }
    });
    all.synced().await;
    pods.synced().await;
    let reconcile = |key| reconcile(&context, &all, &pods, key);
    run_reconciler("pvc-protection-controller", queue, 1, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    all: &Informer<PersistentVolumeClaim>,
    pods: &Informer<Pod>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(claim) = all.get(&key) else { return Ok(Outcome::Done) };
    let used = || !pods.by_index(BY_CLAIM, &format!("{}/{}", key.namespace, key.name)).is_empty();
    let Some(finalizers) = finalizers(&claim.metadata, FINALIZER, used) else { return Ok(Outcome::Done) };
    let mut changed = PersistentVolumeClaim::clone(&claim);
    changed.metadata.finalizers = Some(finalizers);
    unless_missing(context.client.update(&changed).await)?;
    Ok(Outcome::Done)
}
