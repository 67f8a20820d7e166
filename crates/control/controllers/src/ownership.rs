//! Controllers as owners: finding them, writing references to them, adopting and releasing what they select.

use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey, ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The index of objects by the uid of their controller.
pub const BY_CONTROLLER: &str = "controller-uid";
/// The index of objects without a controller by their namespace.
pub const ORPHANS: &str = "orphans-of-namespace";

/// The reference to the controller among an object's owners.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Values for [`BY_CONTROLLER`].
pub fn controller_uid<K: Kind>(object: &K) -> Vec<String> {
    controller_of(object.metadata()).map(|owner| owner.uid.clone()).into_iter().collect()
}

/// Values for [`ORPHANS`].
pub fn orphan_namespace<K: Kind>(object: &K) -> Vec<String> {
    if controller_of(object.metadata()).is_some() { Vec::new() } else { vec![object.namespace().to_owned()] }
}

/// Keeps both indexes on an informer.
pub fn index_by_owner<K: Kind>(informer: &pintle_informer::Informer<K>) {
    informer.index(BY_CONTROLLER, controller_uid::<K>);
    informer.index(ORPHANS, orphan_namespace::<K>);
}

/// A reference that makes `owner` the controller.
pub fn controller_ref<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The key of an object's controller, when that is of the kind `K` (of any version of its group).
pub fn owner_key<K: Kind>(meta: &ObjectMeta) -> Option<ObjectKey> {
    let owner = controller_of(meta)?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (owner.kind == K::KIND && group == K::GROUP)
        .then(|| ObjectKey::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// An object's labels; none are empty ones.
pub fn labels_of(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

/// What a controller has, what it should take, and what it should let go.
#[derive(Debug)]
pub struct Claim<K> {
    pub owned: Vec<Arc<K>>,
    pub adopt: Vec<Arc<K>>,
    pub release: Vec<Arc<K>>,
}

/// Sorts objects into those to keep, to adopt and to release. A controller that is being deleted changes nothing.
pub fn claim<K: Kind>(selector: &LabelSelector, deleting: bool, owned: Vec<Arc<K>>, orphans: Vec<Arc<K>>) -> Claim<K> {
    let matches = |object: &Arc<K>| selector.matches(labels_of(object.metadata()));
    if deleting {
        return Claim { owned: owned.into_iter().filter(matches).collect(), adopt: Vec::new(), release: Vec::new() };
    }
    let (owned, release): (Vec<_>, Vec<_>) = owned.into_iter().partition(matches);
    let adopt = orphans.into_iter().filter(|object| matches(object) && !object.is_deleting()).collect();
    Claim { owned, adopt, release }
}

/// The strategic merge patch that makes `owner` the controller of the object with that uid.
pub fn adoption(owner: &OwnerReference, uid: &str) -> Value {
    json!({ "metadata": { "ownerReferences": [owner], "uid": uid } })
}

/// The strategic merge patch that takes an owner off the object with that uid.
pub fn release(owner_uid: &str, uid: &str) -> Value {
    json!({ "metadata": { "ownerReferences": [{ "$patch": "delete", "uid": owner_uid }], "uid": uid } })
}

/// The pod that a template makes for an owner, without a name.
pub fn pod_of(
    template: &pintle_types::k8s::api::core::v1::PodTemplateSpec,
    namespace: &str,
    prefix: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(generate_prefix(prefix)),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The owner's name and a dash, unless that could not begin a pod's name.
fn generate_prefix(owner: &str) -> String {
    let prefix = format!("{owner}-");
    let valid = pintle_types::names::check_dns1123_subdomain(&format!("{owner}-x")).is_ok();
    if valid { prefix } else { owner.to_owned() }
}
