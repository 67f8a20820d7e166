//! Watches budgets, pods and their controllers, and keeps the budgets' status.

use super::plan;
use crate::context::Context;
use crate::ownership::{controller_of, labels_of, owner_key};
use crate::pods;
use pintle_client::{ClientError, unless_missing};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use pintle_types::k8s::api::core::v1::{Pod, ReplicationController};
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::collections::HashMap;
use std::sync::Arc;

struct Controller {
    context: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    stateful: Informer<StatefulSet>,
    replication: Informer<ReplicationController>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let informers = &context.informers;
    let controller = Controller {
        budgets: informers.of(),
        pods: informers.of(),
        deployments: informers.of(),
        sets: informers.of(),
        stateful: informers.of(),
        replication: informers.of(),
        context: context.clone(),
    };
    let queue: Queue<ObjectKey> = Queue::new();
    let from_budgets = queue.clone();
    controller.budgets.on_change(move |change| from_budgets.add(change.object().key()));
    let (budgets, from_pods) = (controller.budgets.clone(), queue.clone());
    controller.pods.on_change(move |change| {
        for budget in budgets.in_namespace(change.object().namespace()) {
            let selector = selector_of(&budget);
            let mut either = change.old().into_iter().chain(change.new());
            if either.any(|pod| selector.matches(labels_of(&pod.metadata))) {
                from_pods.add(budget.key());
            }
        }
    });
    // A changed number of replicas shows in the pods a moment later.
    controller.budgets.synced().await;
    controller.pods.synced().await;
    controller.deployments.synced().await;
    controller.sets.synced().await;
    controller.stateful.synced().await;
    controller.replication.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("disruption-controller", queue, 1, reconcile, context.stop.clone()).await;
}

fn selector_of(budget: &PodDisruptionBudget) -> LabelSelector {
    LabelSelector::from_typed(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(budget) = self.budgets.get(&key) else { return Ok(Outcome::Done) };
        let selector = selector_of(&budget);
        let mut covered = self.pods.in_namespace(&key.namespace);
        covered.retain(|pod| selector.matches(labels_of(&pod.metadata)) && !pods::is_finished(pod));
        let status = plan::status(&budget, &covered, self.scale(&covered), self.context.now());
        if budget.status.as_ref() == Some(&status) {
            return Ok(Outcome::Done);
        }
        let mut changed = PodDisruptionBudget::clone(&budget);
        changed.status = Some(status);
        unless_missing(self.context.client.update_status(&changed).await)?;
        Ok(Outcome::Done)
    }

    /// The pods that the controllers of some pods want together. Pods without a known controller count as one each.
    fn scale(&self, covered: &[Arc<Pod>]) -> i32 {
        let mut wanted: HashMap<String, i32> = HashMap::new();
        for pod in covered {
            let (uid, replicas) = self.controller_of(pod).unwrap_or_else(|| (pod.uid().to_owned(), 1));
            wanted.insert(uid, replicas);
        }
        wanted.values().sum()
    }

    /// The uid and the replicas of what controls a pod in the end.
    fn controller_of(&self, pod: &Pod) -> Option<(String, i32)> {
        let owner = controller_of(&pod.metadata)?;
        let count = |replicas: Option<i32>| replicas.unwrap_or(1);
        if let Some(key) = owner_key::<ReplicaSet>(&pod.metadata) {
            let set = self.sets.get(&key).filter(|set| set.uid() == owner.uid)?;
            if let Some(key) = owner_key::<Deployment>(&set.metadata) {
                let deployment = self.deployments.get(&key)?;
                return Some((deployment.uid().to_owned(), count(deployment.spec.as_ref()?.replicas)));
            }
            return Some((set.uid().to_owned(), count(set.spec.as_ref()?.replicas)));
        }
        if let Some(key) = owner_key::<StatefulSet>(&pod.metadata) {
            let set = self.stateful.get(&key)?;
            return Some((set.uid().to_owned(), count(set.spec.as_ref()?.replicas)));
        }
        let controller = self.replication.get(&owner_key::<ReplicationController>(&pod.metadata)?)?;
        Some((controller.uid().to_owned(), count(controller.spec.as_ref()?.replicas)))
    }
}
