//! Budgets count healthy pods against what they must keep.

use super::plan::status;
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_clock::Timestamp;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use std::sync::Arc;

fn budget(spec: Value) -> Value {
    let mut object = json!({
        "metadata": { "name": "web", "namespace": "d" },
        "spec": { "selector": { "matchLabels": { "app": "web" } } },
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

#[tokio::test(start_paused = true)]
async fn a_budget_follows_its_pods() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<PodDisruptionBudget>(budget(json!({ "minAvailable": 1 }))).await;
    for name in ["a", "b"] {
        let meta = json!({ "name": name, "namespace": "d", "labels": { "app": "web" } });
        cluster.create::<Pod>(json!({ "metadata": meta, "spec": { "containers": [] } })).await;
        cluster.report("d", name, "Running");
    }
    let allowed = |api: &pintle_fake_api::FakeApi| {
        api.get::<PodDisruptionBudget>("d", "web").and_then(|budget| budget.status?.disruptions_allowed)
    };
    cluster.until("one may go", |api| allowed(api) == Some(1)).await;
    cluster.report("d", "a", "Pending");
    cluster.until("none may go", |api| allowed(api) == Some(0)).await;
}

#[test]
fn numbers_and_percentages() {
    let pod = |ready: bool| {
        let ready = if ready { "True" } else { "False" };
        let status = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] });
        Arc::new(Pod::from_value(json!({ "metadata": { "name": "x" }, "status": status })).unwrap())
    };
    for (spec, healthy, unhealthy, scale, expected) in [
        (json!({ "minAvailable": 2 }), 3, 0, 0, (2, 1)),
        (json!({ "minAvailable": "50%" }), 3, 0, 3, (2, 1)),
        (json!({ "maxUnavailable": 1 }), 2, 1, 3, (2, 0)),
        (json!({ "maxUnavailable": "34%" }), 3, 0, 3, (1, 2)),
        (json!({ "maxUnavailable": 1 }), 0, 0, 0, (0, 0)),
        // "Rounding logic when specifying percentages": of seven pods 50% are four; of what may be gone, too, it is the
        // larger number, so that 30% of seven are three.
        (json!({ "minAvailable": "50%" }), 7, 0, 7, (4, 3)),
        (json!({ "maxUnavailable": "30%" }), 7, 0, 7, (4, 3)),
        (json!({ "minAvailable": "100%" }), 7, 0, 7, (7, 0)),
        (json!({ "maxUnavailable": "0%" }), 7, 0, 7, (7, 0)),
        // "PodDisruptionBudget example": two of three have to be there; one is drained, its successor pending.
        (json!({ "minAvailable": 2 }), 3, 1, 3, (2, 1)),
        (json!({ "minAvailable": 2 }), 2, 1, 3, (2, 0)),
        (json!({ "minAvailable": 2 }), 1, 2, 3, (2, 0)),
    ] {
        let budget = PodDisruptionBudget::from_value(budget(spec.clone())).unwrap();
        let pods: Vec<Arc<Pod>> = (0..healthy + unhealthy).map(|i| pod(i < healthy)).collect();
        let status = status(&budget, &pods, scale, Timestamp::UNIX_EPOCH);
        assert_eq!((status.desired_healthy.unwrap(), status.disruptions_allowed.unwrap()), expected, "{spec}");
    }
}
