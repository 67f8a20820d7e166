//! Revisions: which ReplicaSet is of which template, what its annotations say, what a new one looks like.

use crate::hash::safe_hash;
use crate::ownership::controller_ref;
use pintle_types::k8s::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use pintle_types::k8s::api::core::v1::PodTemplateSpec;
use pintle_types::{Kind, ObjectMeta};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub const TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotations that stay with the Deployment.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
const LONGEST_HISTORY_BYTES: usize = 2000;

/// The revision of an object by its annotation; zero when it has none.
pub fn revision_of(meta: &ObjectMeta) -> i64 {
    let text = meta.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The oldest ReplicaSet that has the Deployment's template.
pub fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let wanted = without_hash(&deployment.spec.as_ref()?.template);
    let same = |set: &&Arc<ReplicaSet>| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.is_some_and(|template| without_hash(template) == wanted)
    };
    let age = |set: &&Arc<ReplicaSet>| (set.metadata.creation_timestamp.clone(), set.name().to_owned());
    sets.iter().filter(same).min_by_key(age).cloned()
}

/// A template without the label that tells it from others.
fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(TEMPLATE_HASH);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
        meta.creation_timestamp = None;
    }
    template
}

/// The hash that tells the template from others.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    safe_hash(&serde_json::to_vec(template).unwrap_or_default(), collisions)
}

/// The annotations that the ReplicaSet of a revision should have, over those that it has.
pub fn annotations(
    deployment: &Deployment,
    old: Option<&BTreeMap<String, String>>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut annotations = old.cloned().unwrap_or_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let before = annotations.get(REVISION).cloned();
    let number: i64 = before.as_ref().and_then(|text| text.parse().ok()).unwrap_or_default();
    if number < revision {
        annotations.insert(REVISION.into(), revision.to_string());
        if let Some(before) = before.filter(|before| !before.is_empty()) {
            remember(&mut annotations, before);
        }
    }
    annotations
}

/// Adds a revision to the history, and drops the oldest that no longer fit.
fn remember(annotations: &mut BTreeMap<String, String>, revision: String) {
    let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut list: Vec<&str> = history.split(',').filter(|text| !text.is_empty()).collect();
    list.push(&revision);
    let mut text = list.join(",");
    while text.len() > LONGEST_HISTORY_BYTES {
        let Some((_, rest)) = text.split_once(',') else { break };
        text = rest.to_owned();
    }
    annotations.insert(REVISION_HISTORY.into(), text);
}

/// The ReplicaSet for the Deployment's template, without replicas yet.
pub fn new_set(deployment: &Deployment, revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.into(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations(deployment, None, revision)),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Whether a ReplicaSet that is in the way is in truth the one that was to be made.
pub fn is_same(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let owned = crate::ownership::controller_of(&set.metadata).is_some_and(|owner| owner.uid == deployment.uid());
    owned && find_new(deployment, &[Arc::new(set.clone())]).is_some()
}
