//! Decides the next step of a StatefulSet: which pods to create and which to delete, in order.

use super::claims::claim_name;
use crate::deployment::resolve;
use crate::ownership::{controller_ref, pod_of};
use crate::pods;
use crate::revisions::REVISION;
use pintle_clock::Timestamp;
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::{StatefulSet, StatefulSetStatus};
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use std::collections::BTreeMap;
use std::sync::Arc;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// A StatefulSet as the decisions need it.
#[derive(Clone, Debug)]
pub struct View {
    pub start: i32,
    pub replicas: i32,
    /// One pod after the other, rather than all at once.
    pub ordered: bool,
    /// How many pods from the start keep the old template; nothing when pods are updated only when somebody deletes
    /// them.
    pub partition: Option<i32>,
    /// How many pods an update may make unavailable at a time; nothing for the one after the other of old.
    pub max_unavailable: Option<i32>,
    pub min_ready_seconds: i32,
}

impl View {
    pub fn of(set: &StatefulSet) -> Self {
        let spec = set.spec.clone().unwrap_or_default();
        let strategy = spec.update_strategy.unwrap_or_default();
        let start = spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or_default();
        let rolling = strategy.rolling_update.unwrap_or_default();
        let (partition, replicas) = (rolling.partition.unwrap_or_default(), spec.replicas.unwrap_or(1));
        let limit = rolling.max_unavailable.as_ref().map(|limit| resolve(Some(limit), replicas, false).max(1));
        Self {
            start,
            replicas,
            max_unavailable: limit,
            ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            partition: (strategy.type_.as_deref() != Some("OnDelete")).then_some(partition),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
        }
    }

    pub fn is_wanted(&self, ordinal: i32) -> bool {
        (self.start..self.start.saturating_add(self.replicas)).contains(&ordinal)
    }
}

/// The ordinal of a pod, when its name is one of the set's.
pub fn ordinal_of(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok())?
}

/// What to do next. All of it may be done at once.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    /// The ordinals of pods to create, and whether each gets the new template.
    pub create: Vec<(i32, bool)>,
    pub delete: Vec<Arc<Pod>>,
    /// The ordinals of pods that wait, perhaps for claims that are gone.
    pub pending: Vec<i32>,
}

impl Step {
    fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

/// Decides the next step. `update` is the name of the newest revision.
pub fn step(
    view: &View,
    pods: &BTreeMap<i32, Arc<Pod>>,
    status: &StatefulSetStatus,
    update: &str,
    now: Timestamp,
) -> Step {
    let mut step = Step::default();
    let ready = |pod: &Pod| pods::is_available(pod, view.min_ready_seconds, now) && !pod.is_deleting();
    for ordinal in view.start..view.start.saturating_add(view.replicas) {
        let waits = match pods.get(&ordinal) {
            None => {
                step.create.push((ordinal, is_new(view, status, update, ordinal)));
                true
            }
            Some(pod) if pods::is_finished(pod) && !pod.is_deleting() => {
                step.delete.push(pod.clone());
                true
            }
            Some(pod) => {
                if pods::phase(pod) == "Pending" {
                    step.pending.push(ordinal);
                }
                !ready(pod)
            }
        };
        if view.ordered && waits {
            return step;
        }
    }
    if shrink(view, pods, &mut step, ready) == Blocked::Yes {
        return step;
    }
    if step.is_empty() {
        step.delete = updates(view, pods, update, ready);
    }
    step
}

#[derive(PartialEq, Eq)]
enum Blocked {
    Yes,
    No,
}

/// Takes pods beyond the wanted ones away, from the highest. In order, one that is not well holds up the others,
/// unless it is the first of those that are not.
fn shrink(view: &View, pods: &BTreeMap<i32, Arc<Pod>>, step: &mut Step, ready: impl Fn(&Pod) -> bool) -> Blocked {
    let surplus = || pods.iter().filter(|(ordinal, _)| !view.is_wanted(**ordinal));
    let first_unwell = surplus().find(|(_, pod)| !ready(pod)).map(|(ordinal, _)| *ordinal);
    for (ordinal, pod) in surplus().rev() {
        let held_up = view.ordered && !ready(pod) && first_unwell != Some(*ordinal);
        if !pod.is_deleting() && !held_up {
            step.delete.push(pod.clone());
        }
        if view.ordered {
            return Blocked::Yes;
        }
    }
    Blocked::No
}

/// Whether a new pod gets the new template: one below the partition does not.
fn is_new(view: &View, status: &StatefulSetStatus, update: &str, ordinal: i32) -> bool {
    status.current_revision.as_deref().is_none_or(|current| current == update)
        || view.partition.is_none_or(|partition| ordinal >= view.start.saturating_add(partition))
}

/// The pods to replace by ones of the new template: from the highest, as many as may be away at a time.
///
/// Without a limit the highest old pod goes, well or not, once all above it are well. With one, a pod that is away
/// already costs nothing of it, so that a broken one does not stop its own repair.
fn updates(view: &View, pods: &BTreeMap<i32, Arc<Pod>>, update: &str, ready: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
    let Some(partition) = view.partition else { return Vec::new() };
    let all = || pods.iter().filter(|(ordinal, _)| view.is_wanted(**ordinal));
    let unwell = i32::try_from(all().filter(|(_, pod)| !ready(pod)).count()).unwrap_or(i32::MAX);
    let mut room = view.max_unavailable.unwrap_or(1).saturating_sub(unwell);
    let mut chosen = Vec::new();
    for (_, pod) in all().rev().filter(|(ordinal, _)| **ordinal >= view.start.saturating_add(partition)) {
        let is_old = pod.label(REVISION) != Some(update) && !pod.is_deleting();
        match view.max_unavailable {
            None if is_old => return vec![pod.clone()],
            None if !ready(pod) => return chosen,
            Some(_) if is_old && !ready(pod) => chosen.push(pod.clone()),
            Some(_) if is_old && room > 0 => {
                room -= 1;
                chosen.push(pod.clone());
            }
            _ => (),
        }
    }
    chosen
}

/// The status after a look at the pods.
pub fn status(
    set: &StatefulSet,
    view: &View,
    pods: &BTreeMap<i32, Arc<Pod>>,
    update: &str,
    now: Timestamp,
) -> StatefulSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let current = old.current_revision.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| update.to_owned());
    let count = |test: &dyn Fn(&Pod) -> bool| -> i32 {
        i32::try_from(pods.values().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let some = |number: i32| (number > 0).then_some(number);
    let of = |revision: &str| count(&|pod| !pod.is_deleting() && pod.label(REVISION) == Some(revision));
    let (replicas, ready) = (count(&|_| true), count(&pods::is_ready));
    let updated = of(update);
    let complete = view.partition.is_some() && updated == replicas && ready == replicas && replicas == view.replicas;
    StatefulSetStatus {
        replicas,
        ready_replicas: some(ready),
        available_replicas: Some(count(&|pod| pods::is_available(pod, view.min_ready_seconds, now))),
        updated_replicas: some(updated),
        current_replicas: some(if complete { updated } else { of(&current) }),
        current_revision: Some(if complete { update.to_owned() } else { current }),
        update_revision: Some(update.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count.or(Some(0)),
        conditions: old.conditions,
    }
}

/// The pod with an ordinal.
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, ordinal: i32, revision: &str) -> Pod {
    let name = format!("{}-{ordinal}", set.name());
    let mut pod = pod_of(template, set.namespace(), set.name(), controller_ref(set));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    labels.insert(REVISION.into(), revision.to_owned());
    let set_spec = set.spec.clone().unwrap_or_default();
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set_spec.service_name;
    let claims = set_spec.volume_claim_templates.unwrap_or_default();
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !claims.iter().any(|claim| claim.name() == volume.name));
    for claim in &claims {
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim_name(set, claim, ordinal), read_only: None };
        volumes.push(Volume {
            name: claim.name().to_owned(),
            persistent_volume_claim: Some(source),
            ..Volume::default()
        });
    }
    if volumes.is_empty() {
        spec.volumes = None;
    }
    pod
}
