//! Watches volumes: one that is bound to a claim is in use.

use super::plan::finalizers;
use crate::context::Context;
use pintle_client::{ClientError, unless_missing};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::PersistentVolume;
use pintle_types::{Kind, ObjectKey};

const FINALIZER: &str = "kubernetes.io/pv-protection";

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let volumes = context.informers.of::<PersistentVolume>();
    let queue: Queue<ObjectKey> = Queue::new();
    let from_volumes = queue.clone();
    volumes.on_change(move |change| from_volumes.add(change.object().key()));
    volumes.synced().await;
    let reconcile = |key| reconcile(&context, &volumes, key);
    run_reconciler("pv-protection-controller", queue, 1, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    volumes: &Informer<PersistentVolume>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(volume) = volumes.get(&key) else { return Ok(Outcome::Done) };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let Some(finalizers) = finalizers(&volume.metadata, FINALIZER, || phase == Some("Bound")) else {
        return Ok(Outcome::Done);
    };
    let mut changed = PersistentVolume::clone(&volume);
    changed.metadata.finalizers = Some(finalizers);
    unless_missing(context.client.update(&changed).await)?;
    Ok(Outcome::Done)
}
