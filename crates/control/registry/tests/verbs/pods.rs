//! Bindings and evictions.

use crate::world::*;
use async_trait::async_trait;
use pintle_registry::{Admission, Attributes, Operation, Request, UserInfo};
use pintle_types::Status;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

fn binding(node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}})
}

#[tokio::test]
async fn a_binding_puts_a_pod_on_a_node_once() {
    let world = World::new().await;
    world.create("pods", pod("p")).await.unwrap();
    let status = world.post("pods", "p", "binding", binding("n1")).await.unwrap().to_value();
    assert_eq!(status["status"], "Success");
    let bound = world.get("pods", "p").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let scheduled = bound["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodScheduled");
    assert_eq!(scheduled.unwrap()["status"], "True");
    let again = world.post("pods", "p", "binding", binding("n2")).await.unwrap_err();
    assert_eq!(
        (again.code, &*again.message),
        (409, "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"")
    );
    let unnamed = json!({"target": {"kind": "Node", "name": "n1"}});
    let refused = world.post("pods", "p", "binding", unnamed).await.unwrap_err();
    assert_eq!(refused.message, "name in URL does not match name in Binding object");
    let mut other = binding("n1");
    other["target"]["kind"] = "Zone".into();
    let refused = world.post("pods", "p", "binding", other).await.unwrap_err();
    assert!(
        refused.message.contains("target.kind: Unsupported value: \"Zone\": supported values: \"Node\", \"<empty>\"")
    );
}

async fn running_pod(world: &World) {
    world.create("pods", pod("p")).await.unwrap();
    world.post("pods", "p", "binding", binding("n1")).await.unwrap();
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    world.merge("pods", "p", "status", ready).await.unwrap();
}

async fn budget(world: &World, allowed: i64) {
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let created = world.create("poddisruptionbudgets.policy", budget).await.unwrap();
    let status = json!({"status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
        "expectedPods": 1, "observedGeneration": created["metadata"]["generation"]}});
    world.merge("poddisruptionbudgets.policy", "b", "status", status).await.unwrap();
}

fn eviction() -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}})
}

#[tokio::test]
async fn an_eviction_deletes_when_the_budget_allows() {
    let world = World::new().await;
    running_pod(&world).await;
    budget(&world, 0).await;
    let refused = world.post("pods", "p", "eviction", eviction()).await.unwrap_err();
    assert_eq!(
        (refused.code, &*refused.message),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    );
    assert_eq!(
        refused.details.unwrap().causes[0].message,
        "The disruption budget b needs 1 healthy pods and has 1 currently"
    );
    let one = json!({"status": {"disruptionsAllowed": 1}});
    world.merge("poddisruptionbudgets.policy", "b", "status", one).await.unwrap();
    world.post("pods", "p", "eviction", eviction()).await.unwrap();
    let pod = world.get("pods", "p").await.unwrap();
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let told = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    let budget = world.get("poddisruptionbudgets.policy", "b").await.unwrap();
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["p"].is_string());
}

#[tokio::test]
async fn a_pending_pod_needs_no_budget() {
    let world = World::new().await;
    world.create("pods", pod("p")).await.unwrap();
    budget(&world, 0).await;
    world.post("pods", "p", "eviction", eviction()).await.unwrap();
    assert_eq!(world.get("pods", "p").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn unready_pods_go_where_the_budget_says_so() {
    let world = World::new().await;
    running_pod(&world).await;
    budget(&world, 0).await;
    world.merge("pods", "p", "status", json!({"status": {"conditions": null}})).await.unwrap();
    let none = json!({"status": {"currentHealthy": 0}});
    world.merge("poddisruptionbudgets.policy", "b", "status", none).await.unwrap();
    assert_eq!(world.post("pods", "p", "eviction", eviction()).await.unwrap_err().code, 429);
    let always = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    world.merge("poddisruptionbudgets.policy", "b", "", always).await.unwrap();
    world.post("pods", "p", "eviction", eviction()).await.unwrap();
}

#[tokio::test]
async fn several_budgets_are_too_many() {
    let world = World::new().await;
    running_pod(&world).await;
    budget(&world, 1).await;
    let second = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "c"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    world.create("poddisruptionbudgets.policy", second).await.unwrap();
    let refused = world.post("pods", "p", "eviction", eviction()).await.unwrap_err();
    assert_eq!(
        (refused.code, &*refused.message),
        (500, "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
    );
}

/// Lets the pod become ready at the moment when it is to be deleted.
struct Racing<'a> {
    world: &'a World,
    done: AtomicBool,
}

#[async_trait]
impl Admission for Racing<'_> {
    async fn validate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if attributes.operation == Operation::Delete && !self.done.swap(true, Ordering::AcqRel) {
            let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            self.world.merge("pods", "p", "status", ready).await?;
        }
        Ok(())
    }
}

/// Evicts the pod while it becomes ready.
async fn evict_racing(world: &World, eviction: Value) -> Status {
    let user = UserInfo { name: "tester".into(), ..UserInfo::default() };
    let racing = Racing { world, done: AtomicBool::new(false) };
    let by = Request::new(&user, &racing, "tester");
    let refused = world.registry.create_subresource(&by, &world.def("pods"), NS, "p", "eviction", eviction).await;
    assert!(racing.done.load(Ordering::Acquire), "nothing was to be deleted");
    assert!(world.get("pods", "p").await.unwrap()["metadata"]["deletionTimestamp"].is_null());
    refused.unwrap_err()
}

#[tokio::test]
async fn a_pending_pod_that_becomes_ready_needs_its_budget() {
    let world = World::new().await;
    world.create("pods", pod("p")).await.unwrap();
    budget(&world, 0).await;
    let refused = evict_racing(&world, eviction()).await;
    assert_eq!(refused.code, 429, "{refused:?}");
    let cause = &refused.details.unwrap().causes[0].message;
    assert_eq!(cause, "The disruption budget b needs 1 healthy pods and has 1 currently");
}

#[tokio::test]
async fn an_unready_pod_that_becomes_ready_is_not_evicted_now() {
    let world = World::new().await;
    running_pod(&world).await;
    budget(&world, 0).await;
    world.merge("pods", "p", "status", json!({"status": {"conditions": null}})).await.unwrap();
    let refused = evict_racing(&world, eviction()).await;
    assert_eq!(refused.code, 429, "{refused:?}");
    let details = refused.details.unwrap();
    assert_eq!(details.retry_after_seconds, 10);
    assert_eq!(details.causes[0].message, "The disruption budget b is still being processed by the server.");
}

#[tokio::test]
async fn an_eviction_of_another_pod_leaves_this_one_as_it_is() {
    let world = World::new().await;
    let made = world.create("pods", pod("p")).await.unwrap();
    for wanted in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        let mut eviction = eviction();
        eviction["deleteOptions"] = json!({"preconditions": wanted});
        assert_eq!(world.post("pods", "p", "eviction", eviction).await.unwrap_err().code, 409);
        assert_eq!(world.get("pods", "p").await.unwrap()["metadata"], made["metadata"], "not even a condition");
    }
}
