//! One look at a Deployment: its ReplicaSets sorted into new and old, and the steps that bring it on.

use super::plan::{self, Resize, Wanted, actual, new_set_size, replicas, sum};
use super::revision::{self, DESIRED, MAX, REVISION, find_new, revision_of};
use super::status::{self, PROGRESSING};
use crate::context::Context;
use crate::ownership::BY_CONTROLLER;
use crate::pods;
use pintle_client::{ClientError, DeleteOptions, unless_missing};
use pintle_informer::{EventType, Informer, Outcome};
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use pintle_types::k8s::api::core::v1::Pod;
use std::sync::Arc;

/// The Deployment and all ReplicaSets that it controls.
pub struct Rollout<'a> {
    pub context: &'a Context,
    pub pods: &'a Informer<Pod>,
    /// As the server has it; changes when the status is written.
    pub deployment: Deployment,
    pub sets: Vec<Arc<ReplicaSet>>,
}

impl Rollout<'_> {
    /// Takes the next step. What follows it is woken by the events that the step causes.
    pub async fn run(&mut self) -> Result<Outcome, ClientError> {
        if self.deployment.is_deleting() {
            return self.write_counts().await;
        }
        self.tell_paused().await?;
        let paused = self.spec_paused();
        if paused || self.is_scaling() {
            return self.rescale(paused).await;
        }
        if Wanted::of(&self.deployment).rolling { self.roll().await } else { self.recreate().await }
    }

    fn spec_paused(&self) -> bool {
        self.deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or_default()
    }

    fn split(&self) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
        let new = find_new(&self.deployment, &self.sets);
        let is_new = |set: &Arc<ReplicaSet>| new.as_ref().is_some_and(|new| new.uid() == set.uid());
        let old = self.sets.iter().filter(|set| !is_new(set)).cloned().collect();
        (new, old)
    }

    /// Whether the number of replicas differs from what the ReplicaSets were last sized for.
    fn is_scaling(&self) -> bool {
        let wanted = Wanted::of(&self.deployment).replicas;
        let sized_for = |set: &Arc<ReplicaSet>| plan::number_in(set, DESIRED);
        self.sets.iter().filter(|set| replicas(set) > 0).any(|set| sized_for(set).is_some_and(|size| size != wanted))
    }

    async fn rescale(&mut self, paused: bool) -> Result<Outcome, ClientError> {
        let (new, old) = self.split();
        let new = match new {
            Some(set) => Some(self.refresh_new(set, &old).await?),
            None => None,
        };
        for Resize { set, replicas } in plan::rescale(Wanted::of(&self.deployment), new.as_ref(), &old) {
            self.resize(&set, replicas).await?;
        }
        if paused {
            self.clean_up(&old).await?;
        }
        self.write_counts().await
    }

    async fn roll(&mut self) -> Result<Outcome, ClientError> {
        let (new, old) = self.split();
        let wanted = Wanted::of(&self.deployment);
        let new = match new {
            Some(set) => self.refresh_new(set, &old).await?,
            None => match self.create_new(&old).await? {
                Some(set) => set,
                None => return Ok(Outcome::Done),
            },
        };
        let size = new_set_size(wanted, replicas(&new), &old);
        if size != replicas(&new) {
            self.resize(&new, size).await?;
            return self.write_rollout(Some(&new)).await;
        }
        let smaller = plan::shrink_old(wanted, &new, &old);
        let shrunk = !smaller.is_empty();
        for Resize { set, replicas } in smaller {
            self.resize(&set, replicas).await?;
        }
        if !shrunk && self.is_complete() {
            self.clean_up(&old).await?;
        }
        self.write_rollout(Some(&new)).await
    }

    async fn recreate(&mut self) -> Result<Outcome, ClientError> {
        let (new, old) = self.split();
        let active = plan::active_by_age(&old);
        for set in &active {
            self.resize(set, 0).await?;
        }
        if !active.is_empty() || self.old_pods_run(&old) {
            return self.write_rollout(new.as_ref()).await;
        }
        let new = match new {
            Some(set) => self.refresh_new(set, &old).await?,
            None => match self.create_new(&old).await? {
                Some(set) => set,
                None => return Ok(Outcome::Done),
            },
        };
        self.resize(&new, Wanted::of(&self.deployment).replicas).await?;
        if self.is_complete() {
            self.clean_up(&old).await?;
        }
        self.write_rollout(Some(&new)).await
    }

    fn old_pods_run(&self, old: &[Arc<ReplicaSet>]) -> bool {
        let runs = |set: &Arc<ReplicaSet>| {
            self.pods.by_index(BY_CONTROLLER, set.uid()).iter().any(|pod| !pods::is_finished(pod))
        };
        sum(old, actual) > 0 || old.iter().any(runs)
    }

    fn is_complete(&self) -> bool {
        self.deployment.status.as_ref().is_some_and(|status| status::is_complete(&self.deployment, status))
    }

    fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
        old.iter().map(|set| revision_of(&set.metadata)).max().unwrap_or_default() + 1
    }

    /// Makes the ReplicaSet of the Deployment's template the newest revision.
    async fn refresh_new(
        &mut self,
        set: Arc<ReplicaSet>,
        old: &[Arc<ReplicaSet>],
    ) -> Result<Arc<ReplicaSet>, ClientError> {
        let annotations =
            revision::annotations(&self.deployment, set.metadata.annotations.as_ref(), Self::next_revision(old));
        let ready_seconds = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
        let set_ready_seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
        let stale = set.metadata.annotations.as_ref() != Some(&annotations) || ready_seconds != set_ready_seconds;
        let set = if stale {
            let mut changed = ReplicaSet::clone(&set);
            changed.metadata.annotations = Some(annotations);
            changed.spec.get_or_insert_default().min_ready_seconds = (ready_seconds > 0).then_some(ready_seconds);
            Arc::new(self.context.client.update(&changed).await?)
        } else {
            set
        };
        self.sets.iter_mut().filter(|known| known.uid() == set.uid()).for_each(|known| *known = set.clone());
        self.write_revision(&set).await?;
        let unknown = self.deployment.status.as_ref().and_then(|s| status::find(s, PROGRESSING)).is_none();
        if unknown && status::deadline(&self.deployment).is_some() {
            let message = format!("Found new replica set {:?}", set.name());
            self.write_progressing("True", "FoundNewReplicaSet", message).await?;
        }
        Ok(set)
    }

    /// Creates the ReplicaSet of the Deployment's template; nothing when the namespace is being deleted.
    async fn create_new(&mut self, old: &[Arc<ReplicaSet>]) -> Result<Option<Arc<ReplicaSet>>, ClientError> {
        let wanted = Wanted::of(&self.deployment);
        let mut set = revision::new_set(&self.deployment, Self::next_revision(old));
        let size = new_set_size(wanted, 0, old);
        set.spec.get_or_insert_default().replicas = Some(size);
        self.note_size(&mut set);
        let name = set.name().to_owned();
        let (set, created) = match self.context.client.create(&set).await {
            Ok(set) => (set, true),
            Err(error) if error.is_already_exists() => (self.resolve_collision(set, error).await?, false),
            Err(error) if error.is_namespace_terminating() => return Ok(None),
            Err(error) => {
                let message = format!("Failed to create new replica set {name:?}: {error}");
                let recorder = &self.context.recorder;
                recorder.event(&self.deployment, EventType::Warning, "ReplicaSetCreateError", message.clone());
                if status::deadline(&self.deployment).is_some() {
                    self.write_progressing("False", "ReplicaSetCreateError", message).await?;
                }
                return Err(error);
            }
        };
        let set = Arc::new(set);
        self.sets.push(set.clone());
        if created && size > 0 {
            self.tell_scaled(&name, 0, size);
        }
        self.write_revision(&set).await?;
        if created && status::deadline(&self.deployment).is_some() {
            let message = format!("Created new replica set {name:?}");
            self.write_progressing("True", "NewReplicaSetCreated", message).await?;
        }
        Ok(Some(set))
    }

    /// A ReplicaSet of that name is there: ours from before, or another's, whose hash is the same by accident.
    async fn resolve_collision(&mut self, set: ReplicaSet, error: ClientError) -> Result<ReplicaSet, ClientError> {
        let found: ReplicaSet = self.context.client.get(set.namespace(), set.name()).await?;
        if revision::is_same(&self.deployment, &found) {
            return Ok(found);
        }
        let mut status = self.deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        self.write_status(status).await?;
        Err(error)
    }

    /// Notes on a ReplicaSet which size of the Deployment it was sized for. Whether that was news.
    fn note_size(&self, set: &mut ReplicaSet) -> bool {
        let wanted = Wanted::of(&self.deployment);
        let annotations = set.metadata.annotations.get_or_insert_default();
        let mut changed = false;
        for (key, number) in [(DESIRED, wanted.replicas), (MAX, wanted.max_total())] {
            let number = number.to_string();
            changed |= annotations.get(key) != Some(&number);
            annotations.insert(key.into(), number);
        }
        changed
    }

    async fn resize(&mut self, set: &Arc<ReplicaSet>, size: i32) -> Result<(), ClientError> {
        let mut changed = ReplicaSet::clone(set);
        let before = replicas(set);
        if !self.note_size(&mut changed) && before == size {
            return Ok(());
        }
        changed.spec.get_or_insert_default().replicas = Some(size);
        let written = Arc::new(self.context.client.update(&changed).await?);
        self.sets.iter_mut().filter(|known| known.uid() == set.uid()).for_each(|known| *known = written.clone());
        if before != size {
            self.tell_scaled(set.name(), before, size);
        }
        Ok(())
    }

    fn tell_scaled(&self, set: &str, from: i32, to: i32) {
        let way = if to > from { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {set} from {from} to {to}");
        self.context.recorder.event(&self.deployment, EventType::Normal, "ScalingReplicaSet", message);
    }

    async fn clean_up(&self, old: &[Arc<ReplicaSet>]) -> Result<(), ClientError> {
        let Some(limit) = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit) else {
            return Ok(());
        };
        for set in plan::beyond_history(limit, old) {
            let options = DeleteOptions::of_uid(set.uid());
            unless_missing(self.context.client.delete::<ReplicaSet>(set.namespace(), set.name(), &options).await)?;
        }
        Ok(())
    }

    /// Says in the conditions that the rollout was paused or goes on, because paused time does not count.
    async fn tell_paused(&mut self) -> Result<(), ClientError> {
        if status::deadline(&self.deployment).is_none() {
            return Ok(());
        }
        let current = self.deployment.status.as_ref().and_then(|s| status::find(s, PROGRESSING));
        let reason = current.and_then(|current| current.reason.as_deref()).unwrap_or_default();
        if reason == status::TIMED_OUT {
            return Ok(());
        }
        let was_paused = reason == "DeploymentPaused";
        match (self.spec_paused(), was_paused) {
            (true, false) => self.write_progressing("Unknown", "DeploymentPaused", "Deployment is paused".into()).await,
            (false, true) => {
                self.write_progressing("Unknown", "DeploymentResumed", "Deployment is resumed".into()).await
            }
            _ => Ok(()),
        }
    }

    async fn write_progressing(&mut self, value: &str, reason: &str, message: String) -> Result<(), ClientError> {
        let mut status = self.deployment.status.clone().unwrap_or_default();
        let next: DeploymentCondition = status::condition(PROGRESSING, value, reason, message, self.context.now());
        status::set(&mut status, next);
        self.write_status(status).await
    }

    /// Writes the newest revision on the Deployment, where people look for it.
    async fn write_revision(&mut self, new: &ReplicaSet) -> Result<(), ClientError> {
        let revision = new.annotation(REVISION).unwrap_or_default();
        if self.deployment.annotation(REVISION) == Some(revision) {
            return Ok(());
        }
        let mut changed = self.deployment.clone();
        changed.metadata.annotations.get_or_insert_default().insert(REVISION.into(), revision.to_owned());
        self.deployment = self.context.client.update(&changed).await?;
        Ok(())
    }

    async fn write_status(&mut self, status: DeploymentStatus) -> Result<(), ClientError> {
        if self.deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = self.deployment.clone();
        changed.status = Some(status);
        self.deployment = self.context.client.update_status(&changed).await?;
        Ok(())
    }

    async fn write_counts(&mut self) -> Result<Outcome, ClientError> {
        let (new, _) = self.split();
        let status = status::counts(&self.deployment, &self.sets, new.as_ref(), self.context.now());
        self.write_status(status).await?;
        Ok(Outcome::Done)
    }

    async fn write_rollout(&mut self, new: Option<&Arc<ReplicaSet>>) -> Result<Outcome, ClientError> {
        let now = self.context.now();
        // The sizes may have changed since the plan was made.
        let new = new.and_then(|new| self.sets.iter().find(|set| set.uid() == new.uid()).cloned());
        let status = status::of_rollout(&self.deployment, &self.sets, new.as_ref(), now);
        self.write_status(status).await?;
        Ok(status::check_again(&self.deployment, now).map_or(Outcome::Done, Outcome::After))
    }
}
