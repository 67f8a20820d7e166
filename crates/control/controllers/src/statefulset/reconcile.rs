//! Watches StatefulSets, their pods and revisions, and takes one step after the other.

use super::claims::{self, Retention};
use super::plan::{self, View, ordinal_of};
use crate::claim::claim_pods;
use crate::context::Context;
use crate::owners::Owners;
use crate::ownership::{BY_CONTROLLER, index_by_owner, labels_of};
use crate::pods::{self, until_available};
use crate::revisions::{self, REVISION};
use pintle_client::{ClientError, DeleteOptions, unless_missing};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue};
use pintle_types::k8s::Resource;
use pintle_types::k8s::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::collections::BTreeMap;
use std::sync::Arc;

const WORKERS: usize = 5;

struct Controller {
    context: Context,
    owners: Arc<Owners<StatefulSet>>,
    revisions: Informer<ControllerRevision>,
    claims: Informer<PersistentVolumeClaim>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let owners = Owners::watch(&context, |set, pod| selector_of(set).matches(labels_of(&pod.metadata)));
    let controller = Controller {
        owners: owners.clone(),
        revisions: context.informers.of(),
        claims: context.informers.of(),
        context: context.clone(),
    };
    index_by_owner(&controller.revisions);
    let queue = owners.queue.clone();
    controller.claims.on_change(move |change| claim_changed(change, &queue));
    controller.revisions.synced().await;
    controller.claims.synced().await;
    owners.run("statefulset-controller", WORKERS, |key| controller.reconcile(key), context.stop).await;
}

fn selector_of(set: &StatefulSet) -> LabelSelector {
    LabelSelector::from_typed(set.spec.as_ref().map(|spec| &spec.selector))
}

/// A pod may be waiting for the claim of its predecessor to go.
fn claim_changed(change: &Change<PersistentVolumeClaim>, queue: &Queue<ObjectKey>) {
    if change.new().is_some() {
        return;
    }
    let claim = change.object();
    for owner in claim.metadata.owner_references.iter().flatten().filter(|owner| owner.kind == Pod::KIND) {
        if let Some((set, _)) = owner.name.rsplit_once('-') {
            queue.add(ObjectKey::new(claim.namespace(), set));
        }
    }
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(set) = self.owners.objects.get(&key) else { return Ok(Outcome::Done) };
        let owned = self.owners.pods_of(&set);
        let mut orphans = self.owners.orphans_near(&set);
        orphans.retain(|pod| ordinal_of(set.name(), pod.name()).is_some() && pods::is_active(pod));
        let owned = claim_pods(&self.context, &*set, &selector_of(&set), owned, orphans).await?;
        let pods: BTreeMap<i32, Arc<Pod>> =
            owned.into_iter().filter_map(|pod| Some((ordinal_of(set.name(), pod.name())?, pod))).collect();
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let known = self.revisions.by_index(BY_CONTROLLER, set.uid());
        let update = revisions::newest(&self.context, &*set, &template, &known).await?;
        let (view, now) = (View::of(&set), self.context.now());
        let new = plan::status(&set, &view, &pods, update.name(), now);
        let mut result = Ok(());
        if !set.is_deleting() {
            let step = plan::step(&view, &pods, &new, update.name(), now);
            self.settle_claims(&set, &view, &pods).await?;
            result = self.take(&set, step, &update, &known, &new).await;
        }
        self.write_status(&set, &new).await?;
        self.truncate(&set, &pods, known, &new).await?;
        result?;
        let wait = until_available(pods.values(), view.min_ready_seconds, now);
        Ok(wait.map_or(Outcome::Done, Outcome::After))
    }

    async fn take(
        &self,
        set: &Arc<StatefulSet>,
        step: plan::Step,
        update: &ControllerRevision,
        known: &[Arc<ControllerRevision>],
        status: &StatefulSetStatus,
    ) -> Result<(), ClientError> {
        for pod in step.delete {
            self.delete(set, &pod).await?;
        }
        for ordinal in step.pending {
            self.create_claims(set, ordinal).await?;
        }
        for (ordinal, is_new) in step.create {
            let current = known.iter().find(|revision| Some(revision.name()) == status.current_revision.as_deref());
            let revision = current.filter(|_| !is_new).map_or(update, |current| &**current);
            let template = revisions::template_in(revision);
            let template = template.or_else(|| set.spec.as_ref().map(|spec| spec.template.clone())).unwrap_or_default();
            let pod = plan::pod(set, &template, ordinal, revision.name());
            if self.is_held_up(set, &pod, ordinal) {
                return Ok(());
            }
            self.create(set, pod, ordinal).await?;
        }
        Ok(())
    }

    /// Whether a claim of the pod's predecessor is still there, and about to go with it.
    fn is_held_up(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
        let known = |claim: &PersistentVolumeClaim| self.claims.get(&claim.key());
        Retention::of(set).delete_with_pod
            && claims::claims(set, ordinal).iter().filter_map(known).any(|claim| claims::is_stale(&claim, pod))
    }

    /// Creates the claims that a pod lacks.
    async fn create_claims(&self, set: &Arc<StatefulSet>, ordinal: i32) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        for claim in claims::claims(set, ordinal) {
            if self.claims.get(&claim.key()).is_some() {
                continue;
            }
            let told = format!("Claim {} Pod {}-{ordinal} in StatefulSet {}", claim.name(), set.name(), set.name());
            match self.context.client.create(&claim).await {
                Ok(_) => {
                    let message = format!("create {told} success");
                    recorder.event(&**set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if error.is_already_exists() => (),
                Err(error) => {
                    let message = format!("create {told} failed error: {error}");
                    recorder.event(&**set, EventType::Warning, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Lets claims go with the pods or the set, or not, as the set says now.
    async fn settle_claims(
        &self,
        set: &Arc<StatefulSet>,
        view: &View,
        pods: &BTreeMap<i32, Arc<Pod>>,
    ) -> Result<(), ClientError> {
        let retention = Retention::of(set);
        for (ordinal, pod) in pods {
            let scaled_down = !view.is_wanted(*ordinal);
            for claim in claims::claims(set, *ordinal).iter().filter_map(|claim| self.claims.get(&claim.key())) {
                let Some(owners) = claims::owners(retention, &claim, set, pod, scaled_down) else { continue };
                let mut changed = PersistentVolumeClaim::clone(&claim);
                changed.metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
                unless_missing(self.context.client.update(&changed).await)?;
            }
        }
        Ok(())
    }

    async fn create(&self, set: &Arc<StatefulSet>, pod: Pod, ordinal: i32) -> Result<(), ClientError> {
        let (client, recorder) = (&self.context.client, &self.context.recorder);
        self.create_claims(set, ordinal).await?;
        let told = format!("create Pod {} in StatefulSet {}", pod.name(), set.name());
        match client.create(&pod).await {
            Ok(_) => {
                self.owners.look_again(set.key());
                recorder.event(&**set, EventType::Normal, "SuccessfulCreate", format!("{told} successful"));
                Ok(())
            }
            // The cache will show it, or it is somebody else's.
            Err(error) if error.is_already_exists() => {
                self.owners.look_again(set.key());
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let message = format!("{told} failed error: {error}");
                recorder.event(&**set, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn delete(&self, set: &Arc<StatefulSet>, pod: &Pod) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        let told = format!("delete Pod {} in StatefulSet {}", pod.name(), set.name());
        match self.context.client.delete::<Pod>(pod.namespace(), pod.name(), &DeleteOptions::of_uid(pod.uid())).await {
            Ok(()) => {
                recorder.event(&**set, EventType::Normal, "SuccessfulDelete", format!("{told} successful"));
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                let message = format!("{told} failed error: {error}");
                recorder.event(&**set, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn write_status(&self, set: &StatefulSet, new: &StatefulSetStatus) -> Result<(), ClientError> {
        if set.status.as_ref() == Some(new) {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = Some(new.clone());
        unless_missing(self.context.client.update_status(&changed).await).map(drop)
    }

    async fn truncate(
        &self,
        set: &StatefulSet,
        pods: &BTreeMap<i32, Arc<Pod>>,
        known: Vec<Arc<ControllerRevision>>,
        status: &StatefulSetStatus,
    ) -> Result<(), ClientError> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let named = [status.current_revision.as_deref(), status.update_revision.as_deref()];
        let in_use = |revision: &ControllerRevision| {
            let name = Some(revision.name());
            named.contains(&name) || pods.values().any(|pod| pod.label(REVISION) == name)
        };
        revisions::truncate(&self.context, known, limit, in_use).await
    }
}
