//! Conditions that devices must meet before their pod is bound: drivers attach or prepare such devices meanwhile.
//!
//! Source: KEP-5007.

use super::claims::{allocation, claims_of};
use crate::bind::Binder;
use crate::pod::PodInfo;
use pintle_clock::Timestamp;
use pintle_informer::EventType;
use pintle_types::Kind;
use pintle_types::k8s::api::resource::v1::{DeviceRequestAllocationResult, ResourceClaim};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::Condition;
use std::time::Duration;

/// How long drivers may take, as upstream's `bindingTimeout` by default.
const PATIENCE: Duration = Duration::from_secs(600);

fn results(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let devices = allocation(claim).and_then(|allocation| allocation.devices.as_ref());
    let results = devices.into_iter().flat_map(|devices| devices.results.iter().flatten());
    results.filter(|result| result.binding_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty()))
}

/// Whether any device of the claim is to be waited for.
pub(super) fn has_any(claim: &ResourceClaim) -> bool {
    results(claim).next().is_some()
}

/// What the driver says of an allocated device; nothing before it says anything.
fn told<'a>(claim: &'a ResourceClaim, result: &DeviceRequestAllocationResult) -> Option<&'a [Condition]> {
    let mut devices = claim.status.iter().flat_map(|status| status.devices.iter().flatten());
    let own = |device: &&pintle_types::k8s::api::resource::v1::AllocatedDeviceStatus| {
        (&device.driver, &device.pool, &device.device) == (&result.driver, &result.pool, &result.device)
    };
    devices.find(own).map(|device| device.conditions.as_deref().unwrap_or_default())
}

/// Whether all devices of the claim are as they must be. Fails, in upstream's words, when one never will be.
pub(super) fn are_met(claim: &ResourceClaim) -> Result<bool, String> {
    for result in results(claim) {
        let Some(conditions) = told(claim, result) else { return Ok(false) };
        let holding = |name: &String| conditions.iter().find(|it| it.type_ == *name && it.status == "True");
        if let Some(failed) = result.binding_failure_conditions.iter().flatten().find_map(holding) {
            let (name, reason, message) = (claim.name(), &failed.reason, &failed.message);
            return Err(format!("claim {name} binding failed: reason={reason}, message={message:?}"));
        }
        if !result.binding_conditions.iter().flatten().all(|name| holding(name).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether drivers had their time since the devices were allocated.
pub(super) fn is_late(claim: &ResourceClaim, now: Timestamp) -> bool {
    let allocated = allocation(claim).and_then(|allocation| allocation.allocation_timestamp.as_ref());
    let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
    allocated.is_some_and(|at| now.as_second() - at.0.as_second() > patience)
}

/// Waits until the devices of all claims of the pod are as they must be.
pub(super) async fn met(binder: &Binder, pod: &PodInfo, node: &str) -> Result<(), String> {
    let claims = claims_of(pod, binder.shared.snapshot.lock().devices())?;
    if !claims.iter().any(|claim| has_any(claim)) {
        return Ok(());
    }
    let message = format!("waiting for binding conditions for device on node {node}");
    binder.recorder.event(&*pod.pod, EventType::Normal, "BindingConditionsPending", message);
    let all_met = async {
        loop {
            // Registered before the look, so that no change is missed.
            let changed = binder.shared.storage_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if look(binder, pod)? {
                return Ok(());
            }
            changed.await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, all_met).await;
    waited.unwrap_or_else(|_| {
        give_up(binder, pod);
        Err("device binding timeout".to_owned())
    })
}

fn look(binder: &Binder, pod: &PodInfo) -> Result<bool, String> {
    if !binder.shared.assumed.lock().contains(&pod.key) {
        return Err("the pod is gone".to_owned());
    }
    let claims = claims_of(pod, binder.shared.snapshot.lock().devices())?;
    for claim in claims {
        if !are_met(&claim)? {
            if !is_late(&claim, binder.clock.now_seconds()) {
                return Ok(false);
            }
            binder.shared.snapshot.lock().devices_mut().set_late(&claim);
            return Err(format!("claim {} binding timeout", claim.name()));
        }
    }
    Ok(true)
}

/// The claims that are waited for are late from now on: others devices may do.
fn give_up(binder: &Binder, pod: &PodInfo) {
    let mut snapshot = binder.shared.snapshot.lock();
    for claim in claims_of(pod, snapshot.devices()).unwrap_or_default() {
        if are_met(&claim) != Ok(true) {
            snapshot.devices_mut().set_late(&claim);
        }
    }
}
