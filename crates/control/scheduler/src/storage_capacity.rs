//! Follows what CSI drivers say of the room that they have, so that volumes are made where there is some.
//!
//! Drivers are watched from the first class on that asks somebody outside for volumes; their room from the first driver
//! on that counts it.

use crate::hints::Event;
use crate::shared::Shared;
use crate::storage::limit;
use pintle_informer::{Change, Informer, Informers};
use pintle_storage::LOCAL_PATH;
use pintle_types::Kind;
use pintle_types::k8s::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Whether volumes of the class could be a CSI driver's.
pub(crate) fn may_be_counted(class: &StorageClass) -> bool {
    let provisioner = class.provisioner.as_str();
    provisioner != LOCAL_PATH && !provisioner.is_empty() && !provisioner.starts_with("kubernetes.io/")
}

/// Follows drivers and their room until `stop`.
pub(crate) async fn follow(informers: Informers, shared: Arc<Shared>, stop: CancellationToken) {
    if stop.run_until_cancelled(shared.provisioner_seen.notified()).await.is_none() {
        return;
    }
    let drivers: Informer<CSIDriver> = informers.of();
    let counting = Arc::new(Notify::new());
    let (tell, of_drivers) = (Arc::clone(&counting), Arc::clone(&shared));
    drivers.on_change(move |change| {
        if driver_changed(&of_drivers, change) {
            tell.notify_one();
        }
    });
    if stop.run_until_cancelled(counting.notified()).await.is_none() {
        return;
    }
    let capacities: Informer<CSIStorageCapacity> = informers.of();
    capacities.on_change(move |change| capacity_changed(&shared, change));
    // The informers are held until the end.
    stop.cancelled().await;
}

fn counts(driver: &CSIDriver) -> bool {
    driver.spec.storage_capacity == Some(true)
}

/// Returns whether the driver counts its room.
fn driver_changed(shared: &Shared, change: &Change<CSIDriver>) -> bool {
    let (before, now) = (change.old().is_some_and(|old| counts(old)), change.new().is_some_and(|new| counts(new)));
    shared.snapshot.lock().storage_mut().set_counting(change.object().name(), now);
    if before && !now {
        shared.cluster_changed(&Event::StorageChanged);
    }
    now
}

fn capacity_changed(shared: &Shared, change: &Change<CSIStorageCapacity>) {
    shared.snapshot.lock().storage_mut().set_capacity(&change.object().key(), change.new().cloned());
    let Some(new) = change.new() else { return };
    if change.old().is_none_or(|old| limit(new) > limit(old)) {
        shared.cluster_changed(&Event::StorageChanged);
    }
}
