//! Evictions: deletions of pods that respect disruption budgets.

use super::delete::check_preconditions;
use super::{ATTEMPTS, Attempt, Current, MODIFIED, Target, meta};
use crate::admission::Operation;
use crate::registry::Registry;
use crate::request::{DeleteOptions, Preconditions, Request};
use pintle_kinds::{ResourceDef, tree};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector as TypedSelector;
use pintle_types::selector::LabelSelector;
use pintle_types::status::{Cause, Details};
use pintle_types::{Reason, Status};
use serde_json::{Value, json};
use std::sync::Arc;

/// Evictions that a budget's controller may not have seen yet.
const MAX_DISRUPTED: usize = 2000;
/// How often a pod without need of a budget is looked at again, as it changed; as often as upstream does.
const LOOKS: usize = 20;
const SEVERAL: &str =
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";

impl Registry {
    pub(super) async fn evict(&self, target: &Target<'_>, eviction: Value) -> Result<(), Status> {
        if meta(&eviction, "name") != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let eviction = self.admit(target, Operation::Create, eviction, None).await?;
        let eviction = self.judge(target, Operation::Create, Some(eviction), None).await?.unwrap_or_default();
        let options = delete_options(&eviction)?;
        // `kubectl drain --dry-run=server` says so in the body alone.
        let mut by = Request::new(target.by.user, target.by.admission, target.by.field_manager);
        (by.field_validation, by.audit) = (target.by.field_validation, target.by.audit);
        by.dry_run = target.by.dry_run || asks_for_dry_run(&eviction);
        let caller = target.by;
        let evicted = self.end(&Target { by: &by, ..*target }, options).await;
        by.take_warnings().into_iter().for_each(|warning| caller.warn(warning));
        evicted
    }

    /// Deletes the pod, if its budget allows it or need not be asked.
    async fn end(&self, target: &Target<'_>, mut options: DeleteOptions) -> Result<(), Status> {
        let Some(pod) = self.end_freely(target, &options).await? else { return Ok(()) };
        let uncounted = self.ask_budget(target, &pod.value).await?;
        let pinned = version_of(&options).is_some();
        if uncounted.is_some() {
            // The pod must not become ready between being looked at and being deleted.
            pin(&mut options, &pod.value);
        }
        match (self.tell_and_delete(target, pod, options).await, uncounted) {
            (Err(status), Some(budget)) if status.reason == Reason::Conflict && !pinned => Err(unsettled(&budget)),
            (deleted, _) => deleted,
        }
    }

    /// Deletes a pod that no budget counts; gives back one that a budget has to be asked about. One that is not over
    /// may become ready meanwhile: then it is looked at again.
    async fn end_freely(&self, target: &Target<'_>, options: &DeleteOptions) -> Result<Option<Current>, Status> {
        let pinned = version_of(options).is_some();
        let mut refused = None;
        for _ in 0..LOOKS {
            self.reach_newest().await?;
            let pod = self.current(target.def, target.ns, target.name)?.ok_or_else(|| target.not_found())?;
            if !ignores_budgets(&pod.value) {
                return Ok(Some(pod));
            }
            let mut options = options.clone();
            if !is_over(&pod.value) {
                pin(&mut options, &pod.value);
            }
            match self.tell_and_delete(target, pod, options).await {
                Err(status) if status.reason == Reason::Conflict && !pinned => refused = Some(status),
                deleted => return deleted.map(|()| None),
            }
        }
        Err(refused.unwrap_or_else(|| target.conflict(MODIFIED)))
    }

    async fn tell_and_delete(
        &self,
        target: &Target<'_>,
        pod: Current,
        mut options: DeleteOptions,
    ) -> Result<(), Status> {
        if !target.by.dry_run {
            self.tell_disruption(target, pod, &mut options).await?;
        }
        self.delete(target.by, target.def, target.ns, target.name, &options).await.map(drop)
    }

    /// Writes down, before the pod ends, that this is no failure of its own.
    async fn tell_disruption(
        &self,
        target: &Target<'_>,
        mut pod: Current,
        options: &mut DeleteOptions,
    ) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            check_preconditions(target.def, &pod.value, options)?;
            match self.swap(target.def, target.key(), pod.revision, &disrupted(&pod.value, &self.now())).await? {
                Attempt::Done(revision) => {
                    if let Some(version) = options.preconditions.as_mut().and_then(|p| p.resource_version.as_mut()) {
                        *version = revision.to_string();
                    }
                    return self.reach_newest().await.map(drop);
                }
                Attempt::Stale(Some(found)) => pod = found,
                Attempt::Stale(None) => return Err(target.not_found()),
            }
        }
        Err(Status::failure(504, Reason::Timeout, "couldn't update the pod's condition due to conflicts"))
    }

    /// Takes an eviction off the budget that the pod is under. Gives the budget's name when the pod does not count, as it
    /// is not ready.
    async fn ask_budget(&self, target: &Target<'_>, pod: &Value) -> Result<Option<String>, Status> {
        let table = self.table();
        let Some(def) = table.get("policy", "v1", "poddisruptionbudgets").map(Arc::clone) else { return Ok(None) };
        for _ in 0..ATTEMPTS {
            let mut budgets = self.budgets(&def, target.ns, pod)?;
            let Some(budget) = budgets.pop() else { return Ok(None) };
            if !budgets.is_empty() {
                return Err(Status::failure(500, Reason::Unknown, SEVERAL));
            }
            let name = meta(&budget.value, "name").to_owned();
            if !is_ready(pod) && lets_unready_go(&budget.value) {
                return Ok(Some(name));
            }
            let reduced = reduced(&budget.value, target.name, &name, &self.now())?;
            let target = Target { def: &def, name: &name, sub: "status", ..*target };
            if target.by.dry_run {
                return Ok(None);
            }
            match self.swap(&def, target.key(), budget.revision, &reduced).await? {
                Attempt::Done(_) => return Ok(None),
                Attempt::Stale(_) => drop(self.reach_newest().await?),
            }
        }
        Err(Status::failure(504, Reason::Timeout, "couldn't update PodDisruptionBudget due to conflicts"))
    }

    fn budgets(&self, def: &ResourceDef, ns: &str, pod: &Value) -> Result<Vec<Current>, Status> {
        let range = pintle_store::KeyRange::prefix(crate::read::below(def, ns));
        let labels = &pod["metadata"]["labels"];
        let covers = |budget: &Value| {
            let typed: Option<TypedSelector> = serde_json::from_value(budget["spec"]["selector"].clone()).ok();
            let selector = LabelSelector::from_typed(typed.as_ref());
            !selector.is_everything() && selector.matches_with(|key| labels.get(key).and_then(Value::as_str))
        };
        let snapshot = self.resource(def)?.snapshot();
        let all = snapshot
            .range(&range)
            .map(|entry| Current { value: Arc::new(entry.to_value()), revision: entry.revision() });
        Ok(all.filter(|budget| covers(&budget.value)).collect())
    }
}

fn delete_options(eviction: &Value) -> Result<DeleteOptions, Status> {
    match eviction.get("deleteOptions").filter(|options| !options.is_null()) {
        None => Ok(DeleteOptions { preconditions: None::<Preconditions>, ..DeleteOptions::default() }),
        Some(options) => serde_json::from_value(options.clone()).map_err(|e| Status::bad_request(e.to_string())),
    }
}

/// The pod with the condition of an eviction.
fn disrupted(pod: &Value, now: &str) -> Value {
    let mut new = pod.clone();
    let mut condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
    });
    if let Some(generation) = pod["metadata"].get("generation") {
        condition["observedGeneration"] = generation.clone();
    }
    if let Some(status) = tree::child(&mut new, "status") {
        let mut conditions = tree::list(status, "conditions").to_vec();
        match conditions.iter_mut().find(|known| known["type"] == condition["type"]) {
            Some(known) => {
                if known["status"] == condition["status"] {
                    condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
                }
                *known = condition;
            }
            None => conditions.push(condition),
        }
        tree::set(status, "conditions", conditions);
    }
    new
}

fn asks_for_dry_run(eviction: &Value) -> bool {
    tree::list(&eviction["deleteOptions"], "dryRun").iter().any(|stage| stage == "All")
}

/// The version of the object that alone is to be deleted.
fn version_of(options: &DeleteOptions) -> Option<&str> {
    options.preconditions.as_ref()?.resource_version.as_deref()
}

/// Only this version of the pod is to be deleted, if the client named none itself.
fn pin(options: &mut DeleteOptions, pod: &Value) {
    let version = || meta(pod, "resourceVersion").to_owned();
    options.preconditions.get_or_insert_default().resource_version.get_or_insert_with(version);
}

/// Pods that do not run, or are going anyway.
fn ignores_budgets(pod: &Value) -> bool {
    is_over(pod) || tree::text(&pod["status"], "phase") == "Pending"
}

/// Pods that cannot become ready any more.
fn is_over(pod: &Value) -> bool {
    let phase = tree::text(&pod["status"], "phase");
    matches!(phase, "Succeeded" | "Failed") || !pod["metadata"]["deletionTimestamp"].is_null()
}

fn is_ready(pod: &Value) -> bool {
    tree::list(&pod["status"], "conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Pods that are not ready count for nothing, unless those that are don't suffice and the budget hopes for more.
fn lets_unready_go(budget: &Value) -> bool {
    if budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
        return true;
    }
    let (healthy, desired) =
        (tree::int(&budget["status"], "currentHealthy"), tree::int(&budget["status"], "desiredHealthy"));
    desired > 0 && healthy >= desired
}

/// The budget with one disruption less, or why there is none left.
fn reduced(budget: &Value, pod: &str, name: &str, now: &str) -> Result<Value, Status> {
    let status = &budget["status"];
    if tree::int(status, "observedGeneration") < tree::int(&budget["metadata"], "generation") {
        return Err(unsettled(name));
    }
    let allowed = tree::int(status, "disruptionsAllowed");
    let forbidden = |why: &str| Err(Status::forbidden("policy", "poddisruptionbudget", name, why));
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let (desired, healthy) = (tree::int(status, "desiredHealthy"), tree::int(status, "currentHealthy"));
        let why = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(too_many(0, why));
    }
    let mut new = budget.clone();
    if let Some(status) = tree::child(&mut new, "status") {
        tree::set(status, "disruptionsAllowed", allowed - 1);
        if let Some(disrupted) = tree::child(status, "disruptedPods") {
            tree::set(disrupted, pod, now);
        }
        if allowed == 1 {
            no_more_allowed(status, now);
        }
    }
    Ok(new)
}

fn no_more_allowed(status: &mut Value, now: &str) {
    let allowed = |condition: &Value| condition["type"] == "DisruptionAllowed";
    let mut conditions = tree::list(status, "conditions").to_vec();
    let observed = tree::int(status, "observedGeneration");
    conditions.retain(|condition| !allowed(condition));
    conditions.push(json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "observedGeneration": observed, "lastTransitionTime": now,
    }));
    tree::set(status, "conditions", conditions);
}

fn unsettled(budget: &str) -> Status {
    too_many(10, format!("The disruption budget {budget} is still being processed by the server."))
}

fn too_many(retry_after_seconds: u32, cause: String) -> Status {
    let cause = Cause { reason: "DisruptionBudget".into(), message: cause, ..Cause::default() };
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let details = Details { causes: vec![cause], retry_after_seconds, ..Details::default() };
    Status::failure(429, Reason::TooManyRequests, message).with_details(details)
}
