//! Watches pods with ephemeral volumes and the claims that they own.

use super::plan;
use crate::context::Context;
use crate::ownership::owner_key;
use pintle_client::ClientError;
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use pintle_types::{Kind, ObjectKey, Status};

fn has_ephemeral(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| volume.ephemeral.is_some())
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let (pods, claims) = (context.informers.of::<Pod>(), context.informers.of::<PersistentVolumeClaim>());
    let queue: Queue<ObjectKey> = Queue::new();
    let from_pods = queue.clone();
    pods.on_change(move |change| {
        // The volumes of a pod never change.
        if let Change::Added(pod) = change
            && has_ephemeral(pod)
        {
            from_pods.add(pod.key());
        }
    });
    let from_claims = queue.clone();
    claims.on_change(move |change| {
        if let Change::Deleted(claim) = change {
            owner_key::<Pod>(&claim.metadata).into_iter().for_each(|key| from_claims.add(key));
        }
    });
    pods.synced().await;
    claims.synced().await;
    let reconcile = |key| reconcile(&context, &pods, &claims, key);
    run_reconciler("ephemeral-volume-controller", queue, 2, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    pods: &Informer<Pod>,
    claims: &Informer<PersistentVolumeClaim>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(pod) = pods.get(&key).filter(|pod| !pod.is_deleting()) else { return Ok(Outcome::Done) };
    for (volume, claim) in plan::claims(&pod) {
        let found = claims.get(&claim.key());
        if found.as_ref().is_some_and(|found| plan::is_for(found, &pod)) {
            continue;
        }
        let result = match found {
            // A person has to take it away; until then it is looked at again, ever later.
            Some(_) => {
                let words = format!("PVC {} was not created for pod {} (pod is not owner)", claim.key(), pod.key());
                return Err(Status::internal(words).into());
            }
            None => context.client.create(&claim).await,
        };
        match result {
            Err(error) if error.is_namespace_terminating() => return Ok(Outcome::Done),
            Err(error) if !error.is_already_exists() => {
                let message = format!("ephemeral volume {volume}: {error}");
                context.recorder.event(&*pod, EventType::Warning, "FailedBinding", message);
                return Err(error);
            }
            _ => (),
        }
    }
    Ok(Outcome::Done)
}
