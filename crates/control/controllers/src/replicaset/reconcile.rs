//! Watches sets and their pods, and does what the plan says.

use super::plan::{Observed, Scaling, scale, status};
use super::set::{Sets, Status};
use crate::batches;
use crate::claim::claim_pods;
use crate::context::Context;
use crate::owners::Owners;
use crate::ownership::{BY_CONTROLLER, controller_of, controller_ref, index_by_owner, labels_of, pod_of};
use crate::pods::{is_active, is_terminating, until_available};
use pintle_client::{ClientError, DeleteOptions, unless_missing};
use pintle_informer::{EventType, Outcome};
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::k8s::{Metadata, Resource};
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;

const WORKERS: usize = 5;

struct Controller<S: Sets> {
    context: Context,
    owners: Arc<Owners<S::Object>>,
}

/// Runs the controller for one of the two kinds until the context's stop.
pub async fn run<S: Sets>(context: Context) {
    let owners = Owners::watch(&context, |set, pod| S::selector(set).matches(labels_of(&pod.metadata)));
    index_by_owner(&owners.objects);
    let controller = Controller::<S> { owners: owners.clone(), context: context.clone() };
    owners.run(S::CONTROLLER, WORKERS, |key| controller.reconcile(key), context.stop).await;
}

impl<S: Sets> Controller<S> {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(set) = self.owners.objects.get(&key) else {
            self.owners.expectations.forget(&key);
            return Ok(Outcome::Done);
        };
        let may_scale = self.owners.settled(&self.context, &set, &S::selector(&set)).await?;
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
        let now = self.context.now();
        let new = status(&old, &observed, now);
        self.write_status(&set, &old, new).await?;
        error.map_or(Ok(()), Err)?;
        let wait = until_available(&active, observed.min_ready_seconds, now);
        Ok(wait.map_or(Outcome::Done, Outcome::After))
    }

    /// The pods of the set, after adopting and releasing those that changed sides.
    async fn claim_pods(&self, set: &Arc<S::Object>) -> Result<Vec<Arc<Pod>>, ClientError> {
        let owned = self.owners.pods_of(set);
        let orphans = self.owners.orphans_near(set).into_iter().filter(|pod| is_active(pod)).collect();
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
            return self.owners.pods_of(set);
        };
        let sets = self.owners.objects.by_index(BY_CONTROLLER, &owner.uid);
        sets.iter().flat_map(|set| self.owners.pods_of(set)).collect()
    }

    async fn create(&self, key: &ObjectKey, set: &Arc<S::Object>, count: usize) -> Result<(), ClientError> {
        let Some(template) = S::template(set) else { return Ok(()) };
        let pod = pod_of(template, set.namespace(), set.name(), controller_ref(&**set));
        self.owners.expectations.expect_creations(key, count);
        match self.owners.create(key, count, |_| self.create_one(set, &pod)).await.1 {
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
        self.owners.expectations.expect_deletions(key, pods.iter().map(|pod| pod.uid().to_owned()));
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
        self.owners.expectations.deleted(key, pod.uid());
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
        unless_missing(self.context.client.update_status(&changed).await).map(drop)
    }
}
