//! The templates that a StatefulSet or DaemonSet had, kept as ControllerRevisions so that one can go back.

use crate::context::Context;
use crate::hash::safe_hash;
use crate::ownership::controller_ref;
use pintle_client::{ClientError, DeleteOptions, unless_missing};
use pintle_types::k8s::api::apps::v1::ControllerRevision;
use pintle_types::k8s::api::core::v1::PodTemplateSpec;
use pintle_types::k8s::apimachinery::pkg::runtime::RawExtension;
use pintle_types::{Kind, ObjectMeta};
use serde_json::{Value, json};
use std::sync::Arc;

/// The label of pods and revisions that tells the revision.
pub const REVISION: &str = "controller-revision-hash";

/// What a revision keeps: a patch that puts the template back.
fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps; nothing when it can't be read.
pub fn template_in(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Makes the template the newest revision, and returns that.
pub async fn newest<K: Kind>(
    context: &Context,
    owner: &K,
    template: &PodTemplateSpec,
    known: &[Arc<ControllerRevision>],
) -> Result<Arc<ControllerRevision>, ClientError> {
    let data = data_of(template);
    let last = known.iter().map(|revision| revision.revision).max().unwrap_or_default();
    let same = |revision: &&Arc<ControllerRevision>| revision.data.as_ref().is_some_and(|known| known.0 == data);
    if let Some(found) = known.iter().filter(same).max_by_key(|revision| revision.revision) {
        if found.revision == last {
            return Ok(found.clone());
        }
        let mut changed = ControllerRevision::clone(found);
        changed.revision = last + 1;
        return Ok(Arc::new(context.client.update(&changed).await?));
    }
    let encoded = data.to_string();
    for collision in 0..10 {
        let hash = safe_hash(encoded.as_bytes(), (collision > 0).then_some(collision));
        let revision = new(owner, template, &hash, data.clone(), last + 1);
        match context.client.create(&revision).await {
            Err(error) if error.is_already_exists() => {
                let found: ControllerRevision = context.client.get(owner.namespace(), revision.name()).await?;
                let ours = crate::ownership::controller_of(&found.metadata).is_some_and(|by| by.uid == owner.uid());
                if ours && found.data == revision.data {
                    return Ok(Arc::new(found));
                }
            }
            other => return Ok(Arc::new(other?)),
        }
    }
    Err(pintle_types::Status::internal(format!("ten revisions of {} have the same hash", owner.key())).into())
}

fn new<K: Kind>(owner: &K, template: &PodTemplateSpec, hash: &str, data: Value, revision: i64) -> ControllerRevision {
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(REVISION.into(), hash.to_owned());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name())),
            namespace: Some(owner.namespace().to_owned()),
            labels: Some(labels),
            annotations: owner.metadata().annotations.clone(),
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// Deletes the oldest revisions beyond a limit, but none that is in use.
pub async fn truncate(
    context: &Context,
    mut known: Vec<Arc<ControllerRevision>>,
    limit: i32,
    in_use: impl Fn(&ControllerRevision) -> bool,
) -> Result<(), ClientError> {
    known.retain(|revision| !in_use(revision));
    known.sort_by_key(|revision| revision.revision);
    let surplus = known.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for revision in known.into_iter().take(surplus) {
        let options = DeleteOptions::of_uid(revision.uid());
        let deleted = context.client.delete::<ControllerRevision>(revision.namespace(), revision.name(), &options);
        unless_missing(deleted.await)?;
    }
    Ok(())
}
