//! Decides whether a claim waits for a larger volume. Source of the rules: upstream's expand controller, none of whose
//! plugins is left.

use pintle_storage::requested;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::quantity::Quantity;

/// What the claim's status says that it has, in billionths of a byte.
fn has(claim: &PersistentVolumeClaim) -> i128 {
    let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    let size = capacity.and_then(|list| list.get("storage")).and_then(|size| size.0.parse::<Quantity>().ok());
    size.map_or(0, |size| size.nanos())
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// Whether a claim is worth a look: it is new, or it wants or has more than before.
pub fn is_news(old: Option<&PersistentVolumeClaim>, new: &PersistentVolumeClaim) -> bool {
    is_bound(new) && old.is_none_or(|old| requested(new) > requested(old) || has(new) > has(old))
}

/// Whether the claim waits for its volume to become larger.
pub fn waits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let its = reference.is_some_and(|reference| {
        reference.namespace.as_deref() == Some(claim.namespace()) && reference.uid.as_deref() == Some(claim.uid())
    });
    its && requested(claim) > has(claim)
}
