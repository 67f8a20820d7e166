//! Watches volumes and sets the phase of those without a claim.

use crate::context::Context;
use pintle_client::ClientError;
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::PersistentVolume;
use pintle_types::{Kind, ObjectKey};

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let volumes = context.informers.of::<PersistentVolume>();
    let queue: Queue<ObjectKey> = Queue::new();
    let from_volumes = queue.clone();
    volumes.on_change(move |change| {
        if change.new().is_some_and(|volume| is_waiting(volume)) {
            from_volumes.add(change.object().key());
        }
    });
    volumes.synced().await;
    let reconcile = |key| reconcile(&context, &volumes, key);
    run_reconciler("persistentvolume-binder-controller", queue, 1, reconcile, context.stop.clone()).await;
}

/// Whether nobody has claimed a new volume, or only by a name that no claim has taken up yet.
fn is_waiting(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    phase == "Pending" && claim.is_none_or(|claim| claim.uid.as_deref().unwrap_or_default().is_empty())
}

async fn reconcile(
    context: &Context,
    volumes: &Informer<PersistentVolume>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(volume) = volumes.get(&key).filter(|volume| is_waiting(volume)) else { return Ok(Outcome::Done) };
    let mut changed = PersistentVolume::clone(&volume);
    let status = changed.status.get_or_insert_default();
    status.phase = Some("Available".into());
    match context.client.update_status(&changed).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}
