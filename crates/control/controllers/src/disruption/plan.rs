//! The arithmetic of a budget.

use crate::deployment::resolve;
use crate::pods;
use pintle_clock::Timestamp;
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::k8s::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::Condition;
use pintle_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use pintle_types::{Kind, Time};
use std::sync::Arc;

/// Evictions that were granted and that the cache does not show after this many seconds did not happen.
const GRANTED_SECONDS: i64 = 120;

/// Whether the number of pods that there should be has to be asked of their controllers.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// The status for the pods that are covered. `scale` is the number of pods that their controllers want together.
pub fn status(
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    scale: i32,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let spec = budget.spec.clone().unwrap_or_default();
    let old = budget.status.clone().unwrap_or_default();
    let expected = if needs_scale(budget) { scale } else { i32::try_from(covered.len()).unwrap_or(i32::MAX) };
    let desired = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (expected - resolve(Some(most), expected, true)).max(0),
        (None, Some(least)) => resolve(Some(least), expected, true),
        (None, None) => 0,
    };
    let mut granted = old.disrupted_pods.unwrap_or_default();
    granted.retain(|name, at| {
        let alive = covered.iter().any(|pod| pod.name() == name && !pod.is_deleting());
        alive && now.as_second() - at.0.as_second() < GRANTED_SECONDS
    });
    let is_healthy = |pod: &&Arc<Pod>| pods::is_ready(pod) && !pod.is_deleting() && !granted.contains_key(pod.name());
    let healthy = i32::try_from(covered.iter().filter(is_healthy).count()).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    let value = if allowed > 0 { "True" } else { "False" };
    let mut conditions = old.conditions.unwrap_or_default();
    let same = |c: &Condition| c.type_ == "DisruptionAllowed" && c.status == value && c.reason == reason;
    if !conditions.iter().any(same) {
        conditions.retain(|condition| condition.type_ != "DisruptionAllowed");
        conditions.push(Condition {
            type_: "DisruptionAllowed".into(),
            status: value.into(),
            reason: reason.into(),
            message: String::new(),
            last_transition_time: Time(now),
            observed_generation: budget.metadata.generation,
        });
    }
    PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        disrupted_pods: (!granted.is_empty()).then_some(granted),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions),
    }
}
