//! Watches sets and their pods, and does what the plan says.

use super::plan::{Observed, Scaling, scale, status};
use super::set::{Sets, Status};
use crate::batches;
use crate::claim::claim_pods;
use crate::context::Context;
use crate::expectations::Expectations;
use crate::ownership::{
    BY_CONTROLLER, ORPHANS, controller_of, controller_ref, index_by_owner, labels_of, owner_key, pod_of,
};
use crate::pods::{is_active, is_ready, is_terminating};
use pintle_client::{ClientError, DeleteOptions};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::k8s::{Metadata, Resource};
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 5;

struct Controller<S: Sets> {
    context: Context,
    sets: Informer<S::Object>,
    pods: Informer<Pod>,
    queue: Queue<ObjectKey>,
    expectations: Expectations,
}

/// Runs the controller for one of the two kinds until the context's stop.
pub async fn run<S: Sets>(context: Context) {
    let controller = Arc::new(Controller::<S> {
        sets: context.informers.of(),
        pods: context.informers.of(),
        queue: Queue::new(),
        expectations: Expectations::default(),
        context: context.clone(),
    });
    index_by_owner(&controller.pods);
    index_by_owner(&controller.sets);
    let queue = controller.queue.clone();
    controller.sets.on_change(move |change| queue.add(change.object().key()));
    let hearing = Arc::downgrade(&controller);
    controller.pods.on_change(move |change| {
        if let Some(controller) = hearing.upgrade() {
            controller.pod_changed(change);
        }
    });
    controller.sets.synced().await;
    controller.pods.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler(S::CONTROLLER, controller.queue.clone(), WORKERS, reconcile, context.stop).await;
}

impl<S: Sets> Controller<S> {
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let owner = owner_key::<S::Object>(&pod.metadata);
        if let Some(old) = change.old() {
            let before = owner_key::<S::Object>(&old.metadata);
            if before != owner {
                before.into_iter().for_each(|key| self.queue.add(key));
            }
        }
        let Some(key) = owner else {
            if change.new().is_some() && controller_of(&pod.metadata).is_none() {
                self.orphan_changed(pod);
            }
            return;
        };
        match change {
            Change::Added(_) if !pod.is_deleting() => self.expectations.created(&key),
            Change::Modified(..) if !pod.is_deleting() => self.wait_for_availability(&key, change),
            _ => self.expectations.deleted(&key, pod.uid()),
        }
        self.queue.add(key);
    }

    /// A pod that just became ready will be available later, without any event.
    fn wait_for_availability(&self, key: &ObjectKey, change: &Change<Pod>) {
        let became_ready = change.old().is_some_and(|old| !is_ready(old)) && is_ready(change.object());
        let Some(set) = self.sets.get(key).filter(|_| became_ready) else { return };
        let seconds = u64::try_from(S::min_ready_seconds(&set)).unwrap_or_default();
        if seconds > 0 {
            self.queue.add_after(key.clone(), Duration::from_secs(seconds + 1));
        }
    }

    fn orphan_changed(&self, pod: &Pod) {
        for set in self.sets.in_namespace(pod.namespace()) {
            if S::selector(&set).matches(labels_of(&pod.metadata)) {
                self.queue.add(set.key());
            }
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(set) = self.sets.get(&key) else {
            self.expectations.forget(&key);
            return Ok(Outcome::Done);
        };
        let may_scale = self.expectations.satisfied(&key);
        let pods = self.claim_pods(&set).await?;
        let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let failure = match set.is_deleting() || !may_scale {
            true => None,
            false => self.scale(&key, &set, &active).await.err(),
        };
        let (failure, error) = failure.map(|(reason, error)| ((reason, error.to_string()), error)).unzip();
        let template = S::template(&set);
        let terminating = pods.iter().filter(|pod| is_terminating(pod)).count();
        let old = S::status(&set);
        let observed = Observed {
            generation: set.metadata().generation.unwrap_or_default(),
            min_ready_seconds: S::min_ready_seconds(&set),
            template,
            active: &active,
            terminating: (S::Object::KIND == "ReplicaSet").then_some(terminating),
            failure,
        };
        let new = status(&old, &observed, self.context.now());
        let waiting = new.ready_replicas != new.available_replicas;
        self.write_status(&set, &old, new).await?;
        error.map_or(Ok(()), Err)?;
        match u64::try_from(observed.min_ready_seconds) {
            Ok(seconds @ 1..) if waiting => Ok(Outcome::After(Duration::from_secs(seconds))),
            _ => Ok(Outcome::Done),
        }
    }

    /// The pods of the set, after adopting and releasing those that changed sides.
    async fn claim_pods(&self, set: &Arc<S::Object>) -> Result<Vec<Arc<Pod>>, ClientError> {
        let owned = self.pods.by_index(BY_CONTROLLER, set.uid());
        let orphans = self.pods.by_index(ORPHANS, set.namespace()).into_iter().filter(|pod| is_active(pod)).collect();
        claim_pods(&self.context, &**set, &S::selector(set), owned, orphans).await
    }

    async fn scale(
        &self,
        key: &ObjectKey,
        set: &Arc<S::Object>,
        active: &[Arc<Pod>],
    ) -> Result<(), (&'static str, ClientError)> {
        match scale(S::replicas(set), active, &self.related(set), self.context.now()) {
            Scaling::Nothing => Ok(()),
            Scaling::Create(count) => self.create(key, set, count).await.map_err(|error| ("FailedCreate", error)),
            Scaling::Delete(pods) => self.delete(key, set, pods).await.map_err(|error| ("FailedDelete", error)),
        }
    }

    /// The pods of all sets that have the owner of this one.
    fn related(&self, set: &S::Object) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(set.metadata()) else {
            return self.pods.by_index(BY_CONTROLLER, set.uid());
        };
        let sets = self.sets.by_index(BY_CONTROLLER, &owner.uid);
        sets.iter().flat_map(|set| self.pods.by_index(BY_CONTROLLER, set.uid())).collect()
    }

    async fn create(&self, key: &ObjectKey, set: &Arc<S::Object>, count: usize) -> Result<(), ClientError> {
        let Some(template) = S::template(set) else { return Ok(()) };
        let pod = pod_of(template, set.namespace(), set.name(), controller_ref(&**set));
        self.expectations.expect_creations(key, count);
        let (created, error) = batches::slow_start(count, |_| self.create_one(set, &pod)).await;
        self.expectations.created_many(key, count - created);
        match error {
            // Nothing more can be created, and nothing needs to be.
            Some(error) if error.is_namespace_terminating() => Ok(()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    // flow: pod 6/16
    async fn create_one(&self, set: &Arc<S::Object>, pod: &Pod) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        match self.context.client.create(pod).await {
            Ok(pod) => {
                let message = format!("Created pod: {}", pod.name());
                recorder.event(&**set, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let message = format!("Error creating: {error}");
                    recorder.event(&**set, EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, set: &Arc<S::Object>, pods: Vec<Arc<Pod>>) -> Result<(), ClientError> {
        self.expectations.expect_deletions(key, pods.iter().map(|pod| pod.uid().to_owned()));
        batches::all(pods, |pod| self.delete_one(key, set, pod)).await
    }

    async fn delete_one(&self, key: &ObjectKey, set: &Arc<S::Object>, pod: Arc<Pod>) -> Result<(), ClientError> {
        let recorder = &self.context.recorder;
        let options = DeleteOptions::of_uid(pod.uid());
        let Err(error) = self.context.client.delete::<Pod>(pod.namespace(), pod.name(), &options).await else {
            let message = format!("Deleted pod: {}", pod.name());
            recorder.event(&**set, EventType::Normal, "SuccessfulDelete", message);
            return Ok(());
        };
        self.expectations.deleted(key, pod.uid());
        if error.is_not_found() || error.is_conflict() {
            return Ok(());
        }
        recorder.event(&**set, EventType::Warning, "FailedDelete", format!("Error deleting: {error}"));
        Err(error)
    }

    async fn write_status(&self, set: &Arc<S::Object>, old: &Status, new: Status) -> Result<(), ClientError> {
        if *old == new {
            return Ok(());
        }
        let mut changed = S::Object::clone(set);
        S::set_status(&mut changed, new);
        match self.context.client.update_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
