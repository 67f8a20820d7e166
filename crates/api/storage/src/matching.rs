//! Which volume suits a claim best.

use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::StorageClass;
use pintle_types::k8s::apimachinery::pkg::api::resource::Quantity as Amount;
use pintle_types::quantity::Quantity;
use pintle_types::selector::LabelSelector;
use std::collections::BTreeMap;
use std::sync::Arc;

const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The class that a claim names, or nothing.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let named = || claim.spec.as_ref()?.storage_class_name.as_deref();
    claim.annotation(CLASS).or_else(named).unwrap_or_default()
}

/// The class that a volume is of, or nothing.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = || volume.spec.as_ref()?.storage_class_name.as_deref();
    volume.annotation(CLASS).or_else(named).unwrap_or_default()
}

/// Whether a claim leaves its class to the cluster.
pub fn wants_default_class(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(CLASS).is_none() && claim.spec.as_ref().is_none_or(|spec| spec.storage_class_name.is_none())
}

/// Whether claims of a class get their volume when it is known where their first pod runs.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether a volume is bound to a claim, or was made for it by name.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    reference.name.as_deref() == Some(claim.name())
        && reference.namespace.as_deref() == Some(claim.namespace())
        && reference.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.uid())
}

fn storage(list: Option<&BTreeMap<String, Amount>>) -> i128 {
    let amount = list.and_then(|list| list.get("storage")).and_then(|amount| amount.0.parse::<Quantity>().ok());
    amount.map_or(0, |amount| amount.nanos())
}

/// The size of a volume, in billionths of a byte.
pub fn capacity(volume: &PersistentVolume) -> i128 {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// The size that a claim asks for, in billionths of a byte.
pub fn requested(claim: &PersistentVolumeClaim) -> i128 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

fn modes(modes: Option<&Vec<String>>) -> &[String] {
    modes.map(Vec::as_slice).unwrap_or_default()
}

fn modes_of_volume(volume: &PersistentVolume) -> &[String] {
    modes(volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref()))
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = modes_of_volume(volume);
    modes(claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref())).iter().all(|mode| offered.contains(mode))
}

/// Whether one is a file system and the other a block device.
pub fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
    of_volume != of_claim
}

fn attributes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    of_volume.unwrap_or_default() != of_claim.unwrap_or_default()
}

/// Why a volume that a claim asks for by name does not suit it.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let checks = [
        (capacity(volume) < requested(claim), "requested PV is too small"),
        (class_of_volume(volume) != class_of_claim(claim), "storageClassName does not match"),
        (attributes_differ(volume, claim), "volumeAttributesClassName does not match"),
        (modes_differ(volume, claim), "incompatible volumeMode"),
        (!has_modes(volume, claim), "incompatible accessMode"),
    ];
    checks.into_iter().find_map(|(wrong, words)| wrong.then_some(words))
}

/// The best volume for a claim: one that was made for it, or else the smallest of those that suit, with as few further
/// access modes as possible; of equals the first by name. With `delayed` only the former.
pub fn best(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    delayed: bool,
) -> Option<Arc<PersistentVolume>> {
    let large_enough = |volume: &&Arc<PersistentVolume>| {
        capacity(volume) >= requested(claim)
            && !modes_differ(volume, claim)
            && !attributes_differ(volume, claim)
            && has_modes(volume, claim)
            && !volume.is_deleting()
    };
    let suited = || volumes.iter().filter(large_enough);
    if let Some(own) = suited().filter(|volume| is_for(volume, claim)).min_by_key(|volume| volume.name()) {
        return Some(own.clone());
    }
    if delayed {
        return None;
    }
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.map(|selector| LabelSelector::from_typed(Some(selector)));
    let is_free = |volume: &&Arc<PersistentVolume>| {
        let spec = volume.spec.as_ref();
        spec.is_none_or(|spec| spec.claim_ref.is_none())
            && volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available")
            && class_of_volume(volume) == class_of_claim(claim)
            && selector.as_ref().is_none_or(|selector| selector.matches_with(|key| volume.label(key)))
    };
    let rank =
        |volume: &&Arc<PersistentVolume>| (modes_of_volume(volume).len(), capacity(volume), volume.name().to_owned());
    suited().filter(is_free).min_by_key(rank).cloned()
}
