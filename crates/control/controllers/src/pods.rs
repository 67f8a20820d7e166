//! What pods are like, as controllers see them: active, ready, available, and which of them to delete first.

use crate::context::seconds_between;
use pintle_clock::Timestamp;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{ObjectReference, Pod, PodCondition};
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// The pod's phase; empty before the API server gave one.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod will never run again.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts: not finished and not being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !pod.is_deleting()
}

/// Whether the pod is being deleted and still there.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && pod.is_deleting()
}

/// The node that the pod is bound to; empty while there is none.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// What points to the pod, as endpoints do.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.uid().to_owned()),
        ..ObjectReference::default()
    }
}

/// A condition of the pod.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Since when the pod is ready; nothing while it is not.
fn ready_since(pod: &Pod) -> Option<Option<Timestamp>> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(ready.last_transition_time.as_ref().map(|time| time.0))
}

pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether the pod has been ready for at least some seconds.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    match ready_since(pod) {
        None => false,
        Some(_) if min_ready_seconds <= 0 => true,
        Some(since) => since.is_some_and(|since| seconds_between(since, now) >= i64::from(min_ready_seconds)),
    }
}

/// When the first of the pods that are ready, and not yet available, will be; nothing when time changes nothing.
pub fn until_available<'a>(
    pods: impl IntoIterator<Item = &'a Arc<Pod>>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    let left = |pod: &Arc<Pod>| Some(i64::from(min_ready_seconds) - seconds_between(ready_since(pod)??, now));
    let first = pods.into_iter().filter_map(left).filter(|left| *left > 0).min()?;
    u64::try_from(first).ok().map(Duration::from_secs)
}

/// Restarts of the container that restarted most.
fn max_restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.map(|container| container.restart_count).max().unwrap_or_default()
}

/// How dear the pod is by its annotation.
fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.annotation("controller.kubernetes.io/pod-deletion-cost");
    cost.and_then(|cost| cost.parse().ok()).unwrap_or_default()
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

/// The order of magnitude of an age: pods of about the same age are equally old.
fn age_rank(since: Option<Timestamp>, now: Timestamp) -> Option<i32> {
    let age = now.as_nanosecond() - since?.as_nanosecond();
    Some(if age <= 0 { -1 } else { age.ilog2() as i32 })
}

/// Orders pods by which to delete first. `doubled` tells how many pods of the same workload share the pod's node.
///
/// Source: `ActivePodsWithRanks` of upstream's controller utilities, with the logarithm of ages.
pub fn deletion_order(a: (&Pod, usize), b: (&Pod, usize), now: Timestamp) -> Ordering {
    let ((a, a_doubled), (b, b_doubled)) = (a, b);
    let (a_ready, b_ready) = (ready_since(a), ready_since(b));
    let created = |pod: &Pod| age_rank(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now);
    let first = node_name(b)
        .is_empty()
        .cmp(&node_name(a).is_empty())
        .then(phase_rank(a).cmp(&phase_rank(b)))
        .then(a_ready.is_some().cmp(&b_ready.is_some()))
        .then(deletion_cost(a).cmp(&deletion_cost(b)))
        .then(b_doubled.cmp(&a_doubled));
    let readiness = || match (a_ready, b_ready) {
        (Some(a), Some(b)) => age_rank(a, now).cmp(&age_rank(b, now)),
        _ => Ordering::Equal,
    };
    first
        .then_with(readiness)
        .then_with(|| max_restarts(b).cmp(&max_restarts(a)))
        .then_with(|| created(a).cmp(&created(b)))
        .then_with(|| a.uid().cmp(b.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let at = "2024-01-01T00:00:00Z";
        let mut object = json!({
            "metadata": { "name": "p", "uid": "m", "creationTimestamp": at },
            "spec": { "nodeName": "n", "containers": [] },
            "status": {
                "phase": "Running", "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": at }],
            },
        });
        change(&mut object);
        Pod::from_value(object).unwrap()
    }

    fn cost(text: &str) -> Pod {
        pod(|object| object["metadata"]["annotations"] = json!({ "controller.kubernetes.io/pod-deletion-cost": text }))
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let now: Timestamp = "2024-01-02T00:00:00Z".parse().unwrap();
        let usual = || pod(|_| ());
        // Each is deleted before the usual pod, or before the other one.
        let first = [
            (pod(|object| object["spec"]["nodeName"] = "".into()), usual()),
            (pod(|object| object["status"]["phase"] = "Pending".into()), usual()),
            (pod(|object| object["status"]["conditions"][0]["status"] = "False".into()), usual()),
            (cost("-5"), usual()),
            (usual(), cost("10")),
            (cost("no number"), cost("1")),
            (
                pod(|object| object["status"]["conditions"][0]["lastTransitionTime"] = "2024-01-01T23:00:00Z".into()),
                usual(),
            ),
            (
                pod(|object| {
                    object["status"]["containerStatuses"] = json!([
                        { "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3 },
                    ]);
                }),
                usual(),
            ),
            (pod(|object| object["metadata"]["creationTimestamp"] = "2024-01-01T23:00:00Z".into()), usual()),
            // Ages of the same order of magnitude are equal, and then chance decides: the uid.
            (
                pod(|object| {
                    object["metadata"]["creationTimestamp"] = "2023-12-31T23:00:00Z".into();
                    object["metadata"]["uid"] = "a".into();
                }),
                usual(),
            ),
        ];
        for (at, (gone, kept)) in first.iter().enumerate() {
            assert_eq!(deletion_order((gone, 0), (kept, 0), now), Ordering::Less, "{at}");
            assert_eq!(deletion_order((kept, 0), (gone, 0), now), Ordering::Greater, "{at}");
        }
        assert_eq!(deletion_order((&usual(), 2), (&usual(), 1), now), Ordering::Less, "a crowded node");
        assert_eq!(deletion_order((&cost("1"), 2), (&usual(), 1), now), Ordering::Greater, "cost comes first");
    }

    #[test]
    fn a_pod_is_available_when_it_was_ready_long_enough() {
        let ready = Arc::new(pod(|_| ()));
        let at = |second: i64| Timestamp::from_second(1_704_067_200 + second).unwrap();
        for (seconds, available, left) in [(0, false, Some(10)), (9, false, Some(1)), (10, true, None)] {
            assert_eq!(is_available(&ready, 10, at(seconds)), available);
            assert_eq!(until_available([&ready], 10, at(seconds)), left.map(Duration::from_secs));
        }
        assert_eq!(until_available([&ready], 0, at(0)), None);
    }
}
