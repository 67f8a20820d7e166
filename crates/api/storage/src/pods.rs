//! Which claims a pod uses.

use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod, Volume};

/// A claim that a pod uses, in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    pub name: String,
    /// Whether the claim is made for the pod and must be its own.
    pub ephemeral: bool,
    pub read_only: bool,
}

/// The claim behind a volume of the pod, if there is one. An ephemeral volume's is named after pod and volume.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<ClaimUse> {
    if let Some(source) = &volume.persistent_volume_claim {
        let read_only = source.read_only == Some(true);
        return Some(ClaimUse { name: source.claim_name.clone(), ephemeral: false, read_only });
    }
    volume.ephemeral.as_ref()?;
    Some(ClaimUse { name: format!("{}-{}", pod.name(), volume.name), ephemeral: true, read_only: false })
}

/// The claims of all volumes of the pod, in their order.
pub fn claims_of(pod: &Pod) -> Vec<ClaimUse> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim_of(pod, volume)).collect()
}

/// Whether a claim was made for an ephemeral volume of this very pod.
pub fn is_pods_own(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid())
}
