//! Watches claims and tells those that grow what they wait for.

use super::plan;
use crate::context::Context;
use pintle_client::ClientError;
use pintle_informer::{EventType, Informer, Outcome, Queue, Recorder, run_reconciler};
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::{Kind, ObjectKey};

/// The component that upstream's events of this are from.
const COMPONENT: &str = "volume_expand";

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let claims = context.informers.of::<PersistentVolumeClaim>();
    let volumes = context.informers.of::<PersistentVolume>();
    let recorder = Recorder::with_clock(context.client.clone(), COMPONENT, "", context.clock.clone());
    let queue: Queue<ObjectKey> = Queue::new();
    let from_claims = queue.clone();
    claims.on_change(move |change| {
        if let Some(new) = change.new()
            && plan::is_news(change.old().map(|old| &**old), new)
        {
            from_claims.add(new.key());
        }
    });
    claims.synced().await;
    volumes.synced().await;
    let reconcile = |key| reconcile(&recorder, &claims, &volumes, key);
    run_reconciler("expand-controller", queue, 1, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    recorder: &Recorder,
    claims: &Informer<PersistentVolumeClaim>,
    volumes: &Informer<PersistentVolume>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(claim) = claims.get(&key) else { return Ok(Outcome::Done) };
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if let Some(volume) = volumes.get(&ObjectKey::new("", name))
        && plan::waits(&claim, &volume)
    {
        let message = "waiting for an external controller to expand this PVC";
        recorder.event(&*claim, EventType::Normal, "ExternalExpanding", message);
    }
    Ok(Outcome::Done)
}
