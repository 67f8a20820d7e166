//! Watches claims, classes and slices, from the first pod on that claims devices.

use super::extended::ANNOTATION;
use crate::hints::Event;
use crate::shared::Shared;
use pintle_informer::{Change, Informer, Informers};
use pintle_types::Kind;
use pintle_types::k8s::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Watches until `stop`, once a pod with claims was seen.
pub(crate) async fn follow(informers: Informers, shared: Arc<Shared>, stop: CancellationToken) {
    if stop.run_until_cancelled(shared.claims_seen.notified()).await.is_none() {
        return;
    }
    let claims: Informer<ResourceClaim> = informers.of();
    let classes: Informer<DeviceClass> = informers.of();
    let slices: Informer<ResourceSlice> = informers.of();
    let (of_claims, of_classes, of_slices) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
    classes.on_change(move |change| class_changed(&of_classes, change));
    slices.on_change(move |change| slice_changed(&of_slices, change));
    claims.on_change(move |change| claim_changed(&of_claims, change));
    let synced = async {
        classes.synced().await;
        slices.synced().await;
        claims.synced().await;
    };
    if stop.run_until_cancelled(synced).await.is_some() {
        shared.snapshot.lock().devices_mut().ready = true;
        shared.claims_changed(None);
        // The informers are held until the end.
        stop.cancelled().await;
    }
}

fn claim_changed(shared: &Shared, change: &Change<ResourceClaim>) {
    let key = change.object().key();
    shared.snapshot.lock().devices_mut().set_claim(&key, change.new().cloned());
    shared.claims_changed(Some(&key.namespace));
    shared.storage_changed.notify_waiters();
    let allocated = |claim: &Arc<ResourceClaim>| claim.status.as_ref().is_some_and(|s| s.allocation.is_some());
    let was = change.old().is_some_and(allocated);
    // A pod waits for the claim of an earlier attempt to go, devices or none.
    let special = change.new().is_none() && change.object().annotation(ANNOTATION).is_some();
    let freed = special || (was && !change.new().is_some_and(allocated));
    // A driver that adds its finalizer changes nothing for pods.
    let same = change.old().zip(change.new()).is_some_and(|(old, new)| old.status == new.status);
    if freed || (change.new().is_some() && !same) {
        shared.cluster_changed(&Event::DeviceClaimChanged { claim: key, freed });
    }
}

fn class_changed(shared: &Shared, change: &Change<DeviceClass>) {
    shared.snapshot.lock().devices_mut().set_class(change.object().name(), change.new().cloned());
    if change.new().is_some() {
        shared.cluster_changed(&Event::DevicesChanged);
    }
}

fn slice_changed(shared: &Shared, change: &Change<ResourceSlice>) {
    shared.snapshot.lock().devices_mut().set_slice(change.object().name(), change.new().cloned());
    if change.new().is_some() {
        shared.cluster_changed(&Event::DevicesChanged);
    }
}
