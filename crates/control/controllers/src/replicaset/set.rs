//! ReplicaSets and ReplicationControllers as one: the few accessors in which they differ.

use crate::ownership::labels_of;
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use pintle_types::k8s::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use pintle_types::selector::LabelSelector;

/// The status of either kind, in ReplicaSet's form.
pub type Status = ReplicaSetStatus;

/// A kind that keeps a number of pods.
pub trait Sets: Send + Sync + 'static {
    type Object: Kind;
    /// The controller's name, which is also its service account and the component of its events.
    const CONTROLLER: &'static str;

    fn selector(object: &Self::Object) -> LabelSelector;
    fn replicas(object: &Self::Object) -> i32;
    fn min_ready_seconds(object: &Self::Object) -> i32;
    fn template(object: &Self::Object) -> Option<&PodTemplateSpec>;
    fn status(object: &Self::Object) -> Status;
    fn set_status(object: &mut Self::Object, status: Status);
}

/// ReplicaSets.
pub struct RsSets;

impl Sets for RsSets {
    type Object = ReplicaSet;
    const CONTROLLER: &'static str = "replicaset-controller";

    fn selector(object: &ReplicaSet) -> LabelSelector {
        LabelSelector::from_typed(object.spec.as_ref().map(|spec| &spec.selector))
    }
    fn replicas(object: &ReplicaSet) -> i32 {
        object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }
    fn min_ready_seconds(object: &ReplicaSet) -> i32 {
        object.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }
    fn template(object: &ReplicaSet) -> Option<&PodTemplateSpec> {
        object.spec.as_ref()?.template.as_ref()
    }
    fn status(object: &ReplicaSet) -> Status {
        object.status.clone().unwrap_or_default()
    }
    fn set_status(object: &mut ReplicaSet, status: Status) {
        object.status = Some(status);
    }
}

/// ReplicationControllers.
pub struct RcSets;

impl Sets for RcSets {
    type Object = ReplicationController;
    const CONTROLLER: &'static str = "replication-controller";

    fn selector(object: &ReplicationController) -> LabelSelector {
        let Some(spec) = &object.spec else { return LabelSelector::nothing() };
        let template = spec.template.as_ref().and_then(|template| template.metadata.as_ref());
        let labels = spec.selector.as_ref().or_else(|| template.map(labels_of)).filter(|labels| !labels.is_empty());
        labels.map_or_else(LabelSelector::nothing, LabelSelector::from_map)
    }
    fn replicas(object: &ReplicationController) -> i32 {
        object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }
    fn min_ready_seconds(object: &ReplicationController) -> i32 {
        object.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }
    fn template(object: &ReplicationController) -> Option<&PodTemplateSpec> {
        object.spec.as_ref()?.template.as_ref()
    }
    fn status(object: &ReplicationController) -> Status {
        let status = object.status.clone().unwrap_or_default();
        let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        Status {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|list| list.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        }
    }
    fn set_status(object: &mut ReplicationController, status: Status) {
        let condition = |c: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        object.status = Some(ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|list| list.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        });
    }
}
