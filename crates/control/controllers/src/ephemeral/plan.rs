//! The claims that a pod's ephemeral volumes stand for.

use crate::ownership::{controller_of, controller_ref};
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use pintle_types::{Kind, ObjectMeta};

/// Each ephemeral volume's name, and its claim.
pub fn claims(pod: &Pod) -> Vec<(String, PersistentVolumeClaim)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &pintle_types::k8s::api::core::v1::Volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
        let meta = template.metadata.unwrap_or_default();
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(format!("{}-{}", pod.name(), volume.name)),
                namespace: Some(pod.namespace().to_owned()),
                labels: meta.labels,
                annotations: meta.annotations,
                owner_references: Some(vec![controller_ref(pod)]),
                ..ObjectMeta::default()
            },
            spec: Some(template.spec),
            status: None,
        };
        Some((volume.name.clone(), claim))
    };
    volumes.filter_map(claim).collect()
}

/// Whether a claim was made for the pod.
pub fn is_for(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    claim.namespace() == pod.namespace() && controller_of(&claim.metadata).is_some_and(|owner| owner.uid == pod.uid())
}
