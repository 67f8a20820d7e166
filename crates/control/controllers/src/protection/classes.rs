//! Watches classes of volume attributes, and the claims and volumes that name them.

use super::plan::finalizers;
use crate::context::Context;
use pintle_client::{ClientError, unless_missing};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::VolumeAttributesClass;
use pintle_types::{Kind, ObjectKey};

const FINALIZER: &str = "kubernetes.io/vac-protection";
const BY_CLASS: &str = "attributes-class";

/// The classes that a claim asks for, has, and is changed to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let asked = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let status = claim.status.as_ref();
    let has = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let next = status
        .and_then(|status| status.modify_volume_status.as_ref())
        .and_then(|modify| modify.target_volume_attributes_class_name.clone());
    [asked, has, next].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn classes_of_volume(volume: &PersistentVolume) -> Vec<String> {
    volume.spec.iter().filter_map(|spec| spec.volume_attributes_class_name.clone()).collect()
}

struct Users {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

impl Users {
    fn any_of(&self, class: &str) -> bool {
        !self.claims.by_index(BY_CLASS, class).is_empty() || !self.volumes.by_index(BY_CLASS, class).is_empty()
    }
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let informers = &context.informers;
    let classes = informers.of::<VolumeAttributesClass>();
    let users = Users { claims: informers.of(), volumes: informers.of() };
    users.claims.index(BY_CLASS, classes_of_claim);
    users.volumes.index(BY_CLASS, classes_of_volume);
    let queue: Queue<ObjectKey> = Queue::new();
    let add = |queue: &Queue<ObjectKey>, names: Vec<String>| {
        names.into_iter().for_each(|name| queue.add(ObjectKey { namespace: String::new(), name }));
    };
    let (from_classes, from_claims, from_volumes) = (queue.clone(), queue.clone(), queue.clone());
    classes.on_change(move |change| from_classes.add(change.object().key()));
    users
        .claims
        .on_change(move |change| add(&from_claims, change.old().map(|it| classes_of_claim(it)).unwrap_or_default()));
    users
        .volumes
        .on_change(move |change| add(&from_volumes, change.old().map(|it| classes_of_volume(it)).unwrap_or_default()));
    classes.synced().await;
    users.claims.synced().await;
    users.volumes.synced().await;
    let reconcile = |key| reconcile(&context, &classes, &users, key);
    let stop = context.stop.clone();
    run_reconciler("volumeattributesclass-protection-controller", queue, 1, reconcile, stop).await;
}

async fn reconcile(
    context: &Context,
    classes: &Informer<VolumeAttributesClass>,
    users: &Users,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(class) = classes.get(&key) else { return Ok(Outcome::Done) };
    let used = || users.any_of(&key.name);
    let Some(finalizers) = finalizers(&class.metadata, FINALIZER, used) else { return Ok(Outcome::Done) };
    let mut changed = VolumeAttributesClass::clone(&class);
    changed.metadata.finalizers = Some(finalizers);
    unless_missing(context.client.update(&changed).await)?;
    Ok(Outcome::Done)
}
