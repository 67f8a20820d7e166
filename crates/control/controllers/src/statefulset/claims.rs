//! The claims of a StatefulSet's pods: what they are, and whose they are when pods or the set go.
//!
//! Source of the ownership: KEP-1847.

use crate::ownership::{controller_of, controller_ref};
use pintle_types::k8s::api::apps::v1::StatefulSet;
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use pintle_types::{Kind, ObjectMeta, OwnerReference};

/// What becomes of claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Claims go with the set.
    pub delete_with_set: bool,
    /// Claims go with pods that are scaled away.
    pub delete_with_pod: bool,
}

impl Retention {
    pub fn of(set: &StatefulSet) -> Self {
        let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.clone());
        let policy = policy.unwrap_or_default();
        let is_delete = |text: Option<String>| text.as_deref() == Some("Delete");
        Self { delete_with_set: is_delete(policy.when_deleted), delete_with_pod: is_delete(policy.when_scaled) }
    }
}

/// The name of the claim for a template and an ordinal.
pub fn claim_name(set: &StatefulSet, claim: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", claim.name(), set.name())
}

/// The claims of the pod with an ordinal.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let claim = |template: &PersistentVolumeClaim| PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(set, template, ordinal)),
            namespace: Some(set.namespace().to_owned()),
            labels: {
                let mut labels = template.metadata.labels.clone().unwrap_or_default();
                labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
                Some(labels)
            },
            annotations: template.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    };
    spec.volume_claim_templates.iter().flatten().map(claim).collect()
}

fn names<K: Kind>(owner: &OwnerReference, object: &K) -> bool {
    owner.kind == K::KIND && owner.name == object.name()
}

/// Whether a claim belongs to an earlier pod of the same name, and will go with that.
pub fn is_stale(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners.filter(|owner| names(owner, pod)).any(|owner| owner.uid != pod.uid())
}

/// The owners that a claim should have, when it has others. A claim that somebody else controls stays as it is.
pub fn owners(
    retention: Retention,
    claim: &PersistentVolumeClaim,
    set: &StatefulSet,
    pod: &Pod,
    scaled_down: bool,
) -> Option<Vec<OwnerReference>> {
    let known = claim.metadata.owner_references.clone().unwrap_or_default();
    let ours = |owner: &OwnerReference| names(owner, set) || names(owner, pod);
    if controller_of(&claim.metadata).is_some_and(|owner| !ours(owner)) {
        return None;
    }
    let by_pod = retention.delete_with_pod && scaled_down;
    let by_set = retention.delete_with_set && !by_pod;
    let mut wanted: Vec<OwnerReference> = known.iter().filter(|owner| !ours(owner)).cloned().collect();
    if by_set {
        wanted.push(controller_ref(set));
    }
    if by_pod {
        wanted.push(controller_ref(pod));
    }
    let same = |a: &[OwnerReference], b: &[OwnerReference]| {
        a.len() == b.len() && a.iter().all(|owner| b.iter().any(|other| owner.uid == other.uid))
    };
    (!same(&known, &wanted)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(kind: &str, name: &str, uid: &str) -> OwnerReference {
        serde_json::from_value(
            json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true }),
        )
        .unwrap()
    }

    /// The uids of the owners that the claim should have; nothing when it has them.
    fn check(policy: (&str, &str), scaled_down: bool, owners_now: &[OwnerReference]) -> Option<Vec<String>> {
        let set = StatefulSet::from_value(json!({
            "metadata": { "name": "db", "uid": "set" },
            "spec": {
                "persistentVolumeClaimRetentionPolicy": { "whenDeleted": policy.0, "whenScaled": policy.1 },
                "selector": {}, "serviceName": "", "template": {},
            },
        }))
        .unwrap();
        let pod = Pod::from_value(json!({ "metadata": { "name": "db-1", "uid": "pod" } })).unwrap();
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.owner_references = Some(owners_now.to_vec());
        let owners = owners(Retention::of(&set), &claim, &set, &pod, scaled_down)?;
        Some(owners.into_iter().map(|owner| owner.uid).collect())
    }

    #[test]
    fn claims_go_with_the_set_the_pod_or_nobody() {
        let none: Option<Vec<String>> = None;
        let some = |uids: &[&str]| Some(uids.iter().map(|uid| (*uid).to_owned()).collect::<Vec<String>>());
        let (set, pod) = (owner("StatefulSet", "db", "set"), owner("Pod", "db-1", "pod"));
        assert_eq!(check(("Retain", "Retain"), false, &[]), none);
        assert_eq!(check(("Retain", "Retain"), true, std::slice::from_ref(&set)), some(&[]));
        assert_eq!(check(("Delete", "Retain"), false, &[]), some(&["set"]));
        assert_eq!(check(("Delete", "Retain"), true, std::slice::from_ref(&set)), none);
        assert_eq!(check(("Retain", "Delete"), false, &[]), none);
        assert_eq!(check(("Retain", "Delete"), true, &[]), some(&["pod"]));
        assert_eq!(check(("Delete", "Delete"), true, std::slice::from_ref(&set)), some(&["pod"]));
        assert_eq!(check(("Delete", "Delete"), false, std::slice::from_ref(&pod)), some(&["set"]));
        assert_eq!(check(("Delete", "Delete"), false, &[owner("Other", "x", "other")]), none, "not ours to change");
        let mut bystander = owner("Other", "x", "other");
        bystander.controller = None;
        assert_eq!(check(("Delete", "Retain"), false, &[bystander]), some(&["other", "set"]));
    }

    #[test]
    fn a_claim_of_the_pod_before_is_stale() {
        let pod = Pod::from_value(json!({ "metadata": { "name": "db-1", "uid": "new" } })).unwrap();
        let mut claim = PersistentVolumeClaim::default();
        for (owner, stale) in [(owner("Pod", "db-1", "old"), true), (owner("Pod", "db-1", "new"), false)] {
            claim.metadata.owner_references = Some(vec![owner]);
            assert_eq!(is_stale(&claim, &pod), stale);
        }
    }
}
