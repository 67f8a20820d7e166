//! Watches Deployments, their ReplicaSets and pods, and takes the steps of rollouts.

use super::rollout::Rollout;
use crate::context::Context;
use crate::ownership::{
    BY_CONTROLLER, Claim, ORPHANS, adoption, claim, controller_of, controller_ref, index_by_owner, labels_of,
    owner_key, release,
};
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::apps::v1::{Deployment, ReplicaSet};
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;

const WORKERS: usize = 5;

struct Controller {
    context: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    queue: Queue<ObjectKey>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        deployments: context.informers.of(),
        sets: context.informers.of(),
        pods: context.informers.of(),
        queue: Queue::new(),
        context: context.clone(),
    });
    index_by_owner(&controller.sets);
    index_by_owner(&controller.pods);
    let queue = controller.queue.clone();
    controller.deployments.on_change(move |change| queue.add(change.object().key()));
    let hearing = Arc::downgrade(&controller);
    controller.sets.on_change(move |change| {
        if let Some(controller) = hearing.upgrade() {
            controller.set_changed(change);
        }
    });
    let hearing = Arc::downgrade(&controller);
    controller.pods.on_change(move |change| {
        if let (Some(controller), Change::Deleted(pod)) = (hearing.upgrade(), change) {
            controller.pod_deleted(pod);
        }
    });
    controller.deployments.synced().await;
    controller.sets.synced().await;
    controller.pods.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("deployment-controller", controller.queue.clone(), WORKERS, reconcile, context.stop).await;
}

fn selector_of(deployment: &Deployment) -> LabelSelector {
    LabelSelector::from_typed(deployment.spec.as_ref().map(|spec| &spec.selector))
}

impl Controller {
    fn set_changed(&self, change: &Change<ReplicaSet>) {
        for set in change.old().into_iter().chain(change.new()) {
            if let Some(key) = owner_key::<Deployment>(&set.metadata) {
                self.queue.add(key);
            }
        }
        let Some(set) = change.new().filter(|set| controller_of(&set.metadata).is_none()) else { return };
        for deployment in self.deployments.in_namespace(set.namespace()) {
            if selector_of(&deployment).matches(labels_of(&set.metadata)) {
                self.queue.add(deployment.key());
            }
        }
    }

    /// A Deployment that recreates waits for the last of its old pods.
    fn pod_deleted(&self, pod: &Pod) {
        let set = owner_key::<ReplicaSet>(&pod.metadata).and_then(|key| self.sets.get(&key));
        let Some(key) = set.and_then(|set| owner_key::<Deployment>(&set.metadata)) else { return };
        let Some(deployment) = self.deployments.get(&key) else { return };
        if !super::plan::Wanted::of(&deployment).rolling {
            self.queue.add(key);
        }
    }

    // flow: pod 5/16
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(Outcome::Done) };
        if selector_of(&deployment).is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.context.recorder.event(&*deployment, EventType::Warning, "SelectingAll", message);
            return Ok(Outcome::Done);
        }
        let sets = self.claim_sets(&deployment).await?;
        let deployment = Deployment::clone(&deployment);
        Rollout { context: &self.context, pods: &self.pods, deployment, sets }.run().await
    }

    /// The Deployment's ReplicaSets, after adopting and releasing those that changed sides.
    async fn claim_sets(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, ClientError> {
        let owned = self.sets.by_index(BY_CONTROLLER, deployment.uid());
        let orphans = self.sets.by_index(ORPHANS, deployment.namespace());
        let deleting = deployment.is_deleting();
        let Claim { mut owned, adopt, release: go } = claim(&selector_of(deployment), deleting, owned, orphans);
        if !adopt.is_empty() {
            // The cache may not know yet that the Deployment is being deleted, or is another of the same name.
            let fresh: Deployment = self.context.client.get(deployment.namespace(), deployment.name()).await?;
            if fresh.uid() != deployment.uid() || fresh.is_deleting() {
                return Ok(owned);
            }
        }
        let owner = controller_ref(deployment);
        for set in adopt {
            if let Some(set) = self.patch_set(&set, adoption(&owner, set.uid())).await? {
                owned.push(Arc::new(set));
            }
        }
        for set in go {
            self.patch_set(&set, release(deployment.uid(), set.uid())).await?;
        }
        Ok(owned)
    }

    /// Nothing when the ReplicaSet is gone, or another one of the same name by now.
    async fn patch_set(&self, set: &ReplicaSet, patch: serde_json::Value) -> Result<Option<ReplicaSet>, ClientError> {
        let (client, options) = (&self.context.client, PatchOptions::default());
        match client.patch(set.namespace(), set.name(), Patch::Strategic(patch), &options).await {
            Ok(set) => Ok(Some(set)),
            Err(error) if error.is_not_found() || error.is_invalid() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
