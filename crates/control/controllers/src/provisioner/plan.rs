//! Decides what is to be done about a claim, and about a volume.

use pintle_storage::{LOCAL_PATH, PROVISIONED_BY, PROVISIONER, SELECTED_NODE, capacity, requested, waits_for_consumer};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::StorageClass;
use serde_json::json;

/// Keeps a volume until its directory is gone.
pub const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// The label by which a volume names its node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// What to do about a claim.
#[derive(Debug, PartialEq)]
pub enum ClaimStep {
    Nothing,
    /// It can't have a volume, for this reason.
    Refuse(&'static str),
    /// A volume on that node.
    Provision(String),
    /// Its volume is to be larger.
    Expand,
}

/// Decides what to do about a claim of our provisioner. `volume` is the one that it is bound to.
pub fn claim(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    volume: Option<&PersistentVolume>,
) -> ClaimStep {
    if claim.is_deleting() {
        return ClaimStep::Nothing;
    }
    if claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).is_some_and(|name| !name.is_empty()) {
        let larger = volume.is_some_and(|volume| is_ours(volume) && too_small(claim, volume));
        return if larger { ClaimStep::Expand } else { ClaimStep::Nothing };
    }
    let Some(class) = class.filter(|class| class.provisioner == LOCAL_PATH) else { return ClaimStep::Nothing };
    if claim.annotation(PROVISIONER[0]) != Some(LOCAL_PATH) {
        return ClaimStep::Nothing;
    }
    match (refusal(claim, class), claim.annotation(SELECTED_NODE)) {
        (Some(why), _) => ClaimStep::Refuse(why),
        (None, Some(node)) if !node.is_empty() => ClaimStep::Provision(node.to_owned()),
        (None, _) => ClaimStep::Nothing,
    }
}

fn refusal(claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<&'static str> {
    let spec = claim.spec.as_ref()?;
    let one_node = |mode: &String| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod");
    let checks = [
        (!waits_for_consumer(class), "the class must have the volumeBindingMode WaitForFirstConsumer"),
        (spec.selector.is_some(), "claim.Spec.Selector is not supported"),
        (spec.volume_mode.as_deref() == Some("Block"), "block volumes are not supported"),
        (!spec.access_modes.iter().flatten().all(one_node), "only ReadWriteOnce and ReadWriteOncePod are supported"),
        (spec.data_source.is_some() || spec.data_source_ref.is_some(), "data sources are not supported"),
    ];
    checks.into_iter().find_map(|(wrong, words)| wrong.then_some(words))
}

fn too_small(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let status = claim.status.as_ref();
    let bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
    let told = status.and_then(|status| status.capacity.as_ref()).and_then(|list| list.get("storage"));
    let told = told.and_then(|amount| amount.0.parse::<pintle_types::quantity::Quantity>().ok());
    bound && (capacity(volume) < requested(claim) || told.is_some_and(|told| told.nanos() < requested(claim)))
}

fn is_ours(volume: &PersistentVolume) -> bool {
    volume.annotation(PROVISIONED_BY) == Some(LOCAL_PATH)
}

/// What to do about a volume.
#[derive(Debug, PartialEq)]
pub enum VolumeStep {
    Nothing,
    /// The directory on the node with that host name goes, then the volume.
    Delete(String),
    /// It is deleted, but its data stay: they were never ours to remove, or are kept.
    LetGo,
}

/// Decides what to do about a volume.
pub fn volume(volume: &PersistentVolume) -> VolumeStep {
    let Some(spec) = volume.spec.as_ref().filter(|_| is_ours(volume)) else { return VolumeStep::Nothing };
    let held = volume.metadata.finalizers.iter().flatten().any(|it| it == FINALIZER);
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let deletes = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    match phase {
        _ if volume.is_deleting() && !held => VolumeStep::Nothing,
        Some("Released" | "Failed") if deletes => VolumeStep::Delete(host_name(volume).unwrap_or_default().to_owned()),
        Some("Bound") => VolumeStep::Nothing,
        _ if volume.is_deleting() => VolumeStep::LetGo,
        _ => VolumeStep::Nothing,
    }
}

/// The host name of the only node where a volume is.
pub fn host_name(volume: &PersistentVolume) -> Option<&str> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let mut wanted = required.node_selector_terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
    wanted.find(|wanted| wanted.key == HOSTNAME)?.values.as_ref()?.first().map(String::as_str)
}

/// The name of the volume for a claim.
pub fn name_for(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid())
}

/// The volume for a claim: a directory on one node.
pub fn made(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    directory: &str,
    host_name: &str,
) -> Result<PersistentVolume, serde_json::Error> {
    let spec = claim.spec.clone().unwrap_or_default();
    let size = spec.resources.and_then(|resources| resources.requests?.get("storage").cloned());
    let node = json!({ "key": HOSTNAME, "operator": "In", "values": [host_name] });
    let value = json!({
        "metadata": {
            "name": name_for(claim),
            "annotations": { PROVISIONED_BY: LOCAL_PATH },
            "finalizers": [FINALIZER],
        },
        "spec": {
            "capacity": { "storage": size },
            "accessModes": spec.access_modes,
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.name(),
            "claimRef": pintle_informer::reference(claim),
            "local": { "path": directory },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [node] }] } },
        },
    });
    serde_json::from_value(value)
}
