//! Carries out what was decided about a pod's claims, and waits until they are bound: upstream's PreBind of
//! VolumeBinding.

use crate::pod::PodInfo;
use crate::shared::Shared;
use crate::storage::{Decision, is_bound};
use pintle_client::{Client, ClientError};
use pintle_storage::{BY_CONTROLLER, SELECTED_NODE, is_for};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use std::sync::Arc;
use std::time::Duration;

/// Why a pod's claims are not bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("binding volumes: {0}")]
    Api(#[from] ClientError),
    #[error("binding volumes: context deadline exceeded")]
    Late,
    #[error("binding volumes: {0}")]
    Changed(String),
    /// Nobody waits for them any more.
    #[error("the pod is gone")]
    Gone,
}

/// Tells the API server of the choices and waits for the claims of the pod to be bound, no longer than `patience`.
pub(crate) async fn bind(
    client: &Client,
    shared: &Shared,
    pod: &PodInfo,
    node: &str,
    decision: &Decision,
    patience: Duration,
) -> Result<(), Failure> {
    for (claim, volume) in &decision.bindings {
        if !is_for(volume, claim) {
            client.update(&promised(volume, claim)).await?;
        }
    }
    let mut told = Vec::new();
    for claim in &decision.provisions {
        if claim.annotation(SELECTED_NODE) == Some(node) {
            told.push(Arc::clone(claim));
            continue;
        }
        let mut changed = PersistentVolumeClaim::clone(claim);
        changed.metadata.annotations.get_or_insert_default().insert(SELECTED_NODE.into(), node.into());
        told.push(Arc::new(client.update(&changed).await?));
    }
    let all_bound = async {
        loop {
            // Registered before the look, so that no change is missed.
            let changed = shared.storage_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if look(shared, pod, node, &told)? {
                return Ok(());
            }
            changed.await;
        }
    };
    tokio::time::timeout(patience, all_bound).await.unwrap_or(Err(Failure::Late))
}

fn promised(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> PersistentVolume {
    let mut changed = volume.clone();
    changed.spec.get_or_insert_default().claim_ref = Some(pintle_informer::reference(claim));
    changed.metadata.annotations.get_or_insert_default().insert(BY_CONTROLLER.into(), "yes".into());
    changed
}

/// Whether all claims are bound.
fn look(shared: &Shared, pod: &PodInfo, node: &str, told: &[Arc<PersistentVolumeClaim>]) -> Result<bool, Failure> {
    if !shared.assumed.lock().contains(&pod.key) {
        return Err(Failure::Gone);
    }
    let snapshot = shared.snapshot.lock();
    for key in pod.claim_keys() {
        let Some(claim) = snapshot.storage().claim(&key) else {
            return Err(Failure::Changed(format!("persistentvolumeclaim \"{}\" not found", key.name)));
        };
        if is_bound(claim) {
            continue;
        }
        // What is seen may be older than what was told.
        let sent = told.iter().find(|told| told.key() == key).filter(|told| told.version() <= claim.version());
        if sent.is_some() && claim.annotation(SELECTED_NODE) != Some(node) {
            return Err(Failure::Changed(format!("selectedNode annotation reset for PVC \"{}\"", key.name)));
        }
        return Ok(false);
    }
    Ok(true)
}
