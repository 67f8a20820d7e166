//! Decides the next step of a StatefulSet: which pods to create and which to delete, in order.

use crate::ownership::{controller_ref, pod_of};
use crate::pods;
use crate::revisions::REVISION;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::apps::v1::{StatefulSet, StatefulSetStatus};
use pintle_types::k8s::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use pintle_types::{Kind, ObjectMeta};
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
    /// The lowest ordinal that updates; nothing when pods are updated only when somebody deletes them.
    pub partition: Option<i32>,
    pub min_ready_seconds: i32,
}

impl View {
    pub fn of(set: &StatefulSet) -> Self {
        let spec = set.spec.clone().unwrap_or_default();
        let strategy = spec.update_strategy.unwrap_or_default();
        let start = spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or_default();
        let partition = strategy.rolling_update.and_then(|update| update.partition).unwrap_or_default();
        Self {
            start,
            replicas: spec.replicas.unwrap_or(1),
            ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            partition: (strategy.type_.as_deref() != Some("OnDelete")).then_some(partition),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
        }
    }

    fn is_wanted(&self, ordinal: i32) -> bool {
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
}

impl Step {
    fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

/// Decides the next step. `current` and `update` are the names of the revisions.
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
            Some(pod) => !ready(pod),
        };
        if view.ordered && waits {
            return step;
        }
    }
    for (_, pod) in pods.iter().rev().filter(|(ordinal, _)| !view.is_wanted(**ordinal)) {
        if !pod.is_deleting() {
            step.delete.push(pod.clone());
        }
        if view.ordered {
            return step;
        }
    }
    if step.is_empty() {
        step.delete.extend(next_update(view, pods, update, ready));
    }
    step
}

/// Whether a new pod gets the new template: one below the partition, or not reached by the update yet, does not.
fn is_new(view: &View, status: &StatefulSetStatus, update: &str, ordinal: i32) -> bool {
    if status.current_revision.as_deref().is_none_or(|current| current == update) {
        return true;
    }
    match view.partition {
        None => true,
        Some(0) => ordinal - view.start >= status.current_replicas.unwrap_or_default(),
        Some(partition) => ordinal >= partition,
    }
}

/// The highest pod that is not of the new template, if all above it are well.
fn next_update(
    view: &View,
    pods: &BTreeMap<i32, Arc<Pod>>,
    update: &str,
    ready: impl Fn(&Pod) -> bool,
) -> Option<Arc<Pod>> {
    let partition = view.partition?;
    for (_, pod) in pods.range(partition.max(view.start)..).rev() {
        if pod.label(REVISION) != Some(update) && !pod.is_deleting() {
            return Some(pod.clone());
        }
        if !ready(pod) {
            return None;
        }
    }
    None
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

fn claim_name(set: &StatefulSet, claim: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", claim.name(), set.name())
}

/// The claims of the pod with an ordinal.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let claim = |template: &PersistentVolumeClaim| PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(set, template, ordinal)),
            namespace: Some(set.namespace().to_owned()),
            labels: {
                let mut labels = template.metadata.labels.clone().unwrap_or_default();
                labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
                Some(labels)
            },
            annotations: template.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    };
    spec.volume_claim_templates.iter().flatten().map(claim).collect()
}
