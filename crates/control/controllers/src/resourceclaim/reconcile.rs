//! Watches pods that ask for devices, and claims. Templates are watched only once a pod names one.

use super::plan::{self, Named};
use crate::context::Context;
use crate::ownership::{BY_CONTROLLER, controller_uid};
use crate::pods;
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions, unless_missing};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Pod, PodResourceClaim};
use pintle_types::k8s::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use pintle_types::{Kind, ObjectKey, Reason, Status};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

const WORKERS: usize = 10;
/// Who applies the names of claims to pods, by upstream's name.
const MANAGER: &str = "ResourceClaimController";
const BY_CLAIM: &str = "resource-claim";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

/// Values for the index of pods by the claims that they use.
fn claims_of(pod: &Pod) -> Vec<String> {
    plan::claims_of(pod).into_iter().map(|name| ObjectKey::new(pod.namespace(), name).to_string()).collect()
}

struct Controller {
    context: Context,
    queue: Queue<Key>,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    /// What was made and is not seen by the informer yet: the uid of the pod and its entry, by the claim.
    made: Mutex<HashMap<ObjectKey, (String, String)>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        queue: Queue::new(),
        pods: context.informers.of(),
        claims: context.informers.of(),
        made: Mutex::default(),
        context: context.clone(),
    });
    controller.pods.index(BY_CLAIM, claims_of);
    controller.claims.index(BY_CONTROLLER, controller_uid::<ResourceClaim>);
    let weak = Arc::downgrade(&controller);
    controller.pods.on_change(move |change| {
        if plan::entries(change.object()).is_empty() && plan::extended_claim(change.object()).is_none() {
            return;
        }
        if let Some(controller) = weak.upgrade() {
            controller.pod_changed(change.object(), matches!(change, Change::Deleted(_)));
        }
    });
    let weak = Arc::downgrade(&controller);
    controller.claims.on_change(move |change| {
        if let Some(controller) = weak.upgrade() {
            controller.claim_changed(change.object(), matches!(change, Change::Deleted(_)));
        }
    });
    controller.pods.synced().await;
    controller.claims.synced().await;
    let reconcile = |key: Key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    };
    run_reconciler("resource-claim-controller", controller.queue.clone(), WORKERS, reconcile, context.stop.clone())
        .await;
}

impl Controller {
    fn pod_changed(&self, pod: &Pod, gone: bool) {
        if gone || plan::is_done(pod) {
            for name in plan::claims_of(pod).into_iter().chain(plan::extended_claim(pod)) {
                self.queue.add(Key::Claim(ObjectKey::new(pod.namespace(), name)));
            }
        }
        if !gone && needs_claims(pod) {
            self.queue.add(Key::Pod(pod.key()));
        }
    }

    fn claim_changed(&self, claim: &ResourceClaim, gone: bool) {
        let key = claim.key();
        self.made.lock().remove(&key);
        for pod in self.pods.by_index(BY_CLAIM, &key.to_string()) {
            self.pod_changed(&pod, false);
        }
        if !gone {
            self.queue.add(Key::Claim(key));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, ClientError> {
        match key {
            Key::Pod(key) => self.reconcile_pod(key).await?,
            Key::Claim(key) => self.reconcile_claim(key).await?,
        }
        Ok(Outcome::Done)
    }

    async fn reconcile_pod(&self, key: ObjectKey) -> Result<(), ClientError> {
        let Some(pod) = self.pods.get(&key).filter(|pod| needs_claims(pod)) else { return Ok(()) };
        let (mut all, mut news) = (Vec::new(), false);
        for entry in plan::entries(&pod) {
            let found = self.claim_for(&pod, entry).await.map_err(|error| {
                let message = format!("PodResourceClaim {}: {error}", entry.name);
                self.context.recorder.event(&*pod, EventType::Warning, "FailedResourceClaimCreation", message);
                error
            })?;
            news |= found.is_new;
            all.extend(found.own.map(|name| json!({ "name": entry.name, "resourceClaimName": name })));
        }
        if news {
            self.tell(&pod, all).await?;
        }
        if !pods::node_name(&pod).is_empty() {
            self.reserve(&pod).await?;
        }
        Ok(())
    }

    /// Finds the claim of an entry, or makes it.
    async fn claim_for(&self, pod: &Pod, entry: &PodResourceClaim) -> Result<Found, ClientError> {
        let known = match plan::named(pod, entry) {
            Named::Claim { own: false, .. } | Named::NotNeeded => return Ok(Found::default()),
            Named::Unknown => {
                let words = "checking for claim before creating it: none of the supported fields are set";
                return Err(Status::failure(500, Reason::InternalError, words).into());
            }
            Named::Claim { name, own: true } => Some(name),
            Named::NotYet { .. } => None,
        };
        if let Some(name) = known {
            let key = ObjectKey::new(pod.namespace(), name);
            let is_there = self.claims.get(&key).is_some_and(|claim| plan::is_for(&claim, pod));
            if is_there || self.made.lock().contains_key(&key) {
                return Ok(Found { own: Some(name.to_owned()), is_new: false });
            }
        }
        let present = self.claims.by_index(BY_CONTROLLER, pod.uid());
        let name = match plan::made_for(&present, &entry.name).map(str::to_owned).or_else(|| self.made_for(pod, entry))
        {
            Some(name) => name,
            None => self.make(pod, entry).await?,
        };
        Ok(Found { is_new: known != Some(name.as_str()), own: Some(name) })
    }

    fn made_for(&self, pod: &Pod, entry: &PodResourceClaim) -> Option<String> {
        let made = self.made.lock();
        made.iter().find(|(_, (uid, of))| uid == pod.uid() && *of == entry.name).map(|(key, _)| key.name.clone())
    }

    async fn make(&self, pod: &Pod, entry: &PodResourceClaim) -> Result<String, ClientError> {
        let template = entry.resource_claim_template_name.as_deref().unwrap_or_default();
        let templates = self.context.informers.of::<ResourceClaimTemplate>();
        templates.synced().await;
        let Some(found) = templates.get(&ObjectKey::new(pod.namespace(), template)) else {
            let words = format!(
                "resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io {template:?} not found"
            );
            return Err(Status::failure(500, Reason::InternalError, words).into());
        };
        let created = self.context.client.create(&plan::claim(pod, &entry.name, &found)).await?;
        let key = created.key();
        self.made.lock().insert(key.clone(), (pod.uid().to_owned(), entry.name.clone()));
        if self.claims.get(&key).is_some() {
            // The informer was faster than the answer.
            self.made.lock().remove(&key);
        }
        Ok(key.name)
    }

    /// Writes down in the pod's status which claims are its own.
    async fn tell(&self, pod: &Pod, statuses: Vec<serde_json::Value>) -> Result<(), ClientError> {
        let patch = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid() },
            "status": { "resourceClaimStatuses": statuses },
        });
        let options = PatchOptions { field_manager: MANAGER.into(), force: true, ..PatchOptions::status() };
        self.context.client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Apply(patch), &options).await.map(drop)
    }

    /// Reserves the claims of a pod that came to its node past the scheduler.
    async fn reserve(&self, pod: &Pod) -> Result<(), ClientError> {
        for name in plan::claims_of(pod) {
            let claim = self.claims.get(&ObjectKey::new(pod.namespace(), name));
            if let Some(changed) = claim.and_then(|claim| plan::reserved(&claim, pod)) {
                self.context.client.update_status(&changed).await?;
            }
        }
        Ok(())
    }

    async fn reconcile_claim(&self, key: ObjectKey) -> Result<(), ClientError> {
        let Some(claim) = self.claims.get(&key) else { return Ok(()) };
        let mut left = Vec::new();
        for consumer in plan::consumers(&claim) {
            let is_pod = consumer.resource == "pods" && consumer.api_group.as_deref().unwrap_or_default().is_empty();
            if !is_pod || self.still_uses(&key.namespace, &consumer.name, &consumer.uid).await? {
                left.push(consumer.clone());
            }
        }
        let unused = left.is_empty();
        let release = plan::release(&claim, left);
        let mut fresh = ResourceClaim::clone(&claim);
        if let Some(status) = &release.status {
            fresh = self.context.client.update_status(status).await?;
        }
        if release.unprotect {
            if let Some(finalizers) = &mut fresh.metadata.finalizers {
                finalizers.retain(|finalizer| finalizer != plan::FINALIZER);
            }
            self.context.client.update(&fresh).await?;
        }
        if unused { self.delete_useless(&claim).await } else { Ok(()) }
    }

    async fn still_uses(&self, namespace: &str, name: &str, uid: &str) -> Result<bool, ClientError> {
        if let Some(pod) = self.pods.get(&ObjectKey::new(namespace, name)) {
            return Ok(pod.uid() == uid && !plan::is_done(&pod));
        }
        // The informer may not know of the pod yet, which the scheduler may be binding at this moment.
        let pod = self.context.client.get_opt::<Pod>(namespace, name).await?;
        Ok(pod.is_some_and(|pod| pod.uid() == uid))
    }

    /// Deletes a claim that was made for a pod which will not run any more: the pod itself may stay for long.
    async fn delete_useless(&self, claim: &ResourceClaim) -> Result<(), ClientError> {
        let Some((name, uid)) = plan::owning_pod(claim) else { return Ok(()) };
        let pod = self.pods.get(&ObjectKey::new(claim.namespace(), name));
        if claim.is_deleting() || !pod.is_some_and(|pod| pod.uid() != uid || plan::is_done(&pod)) {
            return Ok(());
        }
        let options = DeleteOptions::of_uid(claim.uid());
        unless_missing(self.context.client.delete::<ResourceClaim>(claim.namespace(), claim.name(), &options).await)?;
        Ok(())
    }
}

/// Whether claims are made for a pod: one for a pod that has ended would be deleted at once, and made again.
fn needs_claims(pod: &Pod) -> bool {
    !pod.is_deleting() && !plan::is_done(pod)
}

/// What was found for an entry of a pod.
#[derive(Default)]
struct Found {
    /// The pod's own claim.
    own: Option<String>,
    /// Whether the pod's status does not tell of it yet.
    is_new: bool,
}
