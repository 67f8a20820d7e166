//! The scale subresource.

use crate::world::*;
use pintle_registry::{AdmitAll, Patch, Request, UserInfo};
use pintle_types::Status;
use serde_json::{Value, json};

async fn scale(world: &World) -> Result<Value, Status> {
    let def = world.def("deployments.apps");
    world.registry.get_subresource(&def, NS, "d", "scale").await.map(|o| o.to_value())
}

#[tokio::test]
async fn a_scale_shows_and_sets_the_replicas() {
    let world = World::new().await;
    let created = world.create("deployments.apps", deployment("d")).await.unwrap();
    let shown = scale(&world).await.unwrap();
    assert_eq!((&shown["kind"], &shown["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(shown["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!(
        (&shown["spec"], &shown["status"]),
        (&json!({"replicas": 2}), &json!({"replicas": 0, "selector": "app=web"}))
    );
    let patched = world.merge("deployments.apps", "d", "scale", json!({"spec": {"replicas": 4}})).await.unwrap();
    assert_eq!(patched["spec"]["replicas"], 4);
    let object = world.get("deployments.apps", "d").await.unwrap();
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(4), &json!(2)));
    let mut stale = shown;
    stale["spec"]["replicas"] = 1.into();
    assert_eq!(world.update("deployments.apps", "scale", stale).await.unwrap_err().code, 409);
    let wrong = json!({"metadata": {"name": "d"}, "spec": {"replicas": -1}});
    let refused = world.update("deployments.apps", "scale", wrong).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    let def = world.def("configmaps");
    assert_eq!(world.registry.get_subresource(&def, NS, "d", "scale").await.unwrap_err().code, 405);
}

#[tokio::test]
async fn who_scales_owns_the_replicas() {
    let world = World::new().await;
    world.create("deployments.apps", deployment("d")).await.unwrap();
    world.merge("deployments.apps", "d", "scale", json!({"spec": {"replicas": 4}})).await.unwrap();
    let object = world.get("deployments.apps", "d").await.unwrap();
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let owners: Vec<&Value> = entries.iter().filter(|it| !it["fieldsV1"]["f:spec"]["f:replicas"].is_null()).collect();
    assert_eq!(owners.len(), 1, "{entries:?}");
    assert_eq!(owners[0]["subresource"], "scale");
    assert_eq!(owners[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
}

async fn apply(world: &World, manager: &str, replicas: u32, force: bool) -> Result<Value, Status> {
    let (user, def) = (UserInfo::default(), world.def("deployments.apps"));
    let by = Request::new(&user, &AdmitAll, manager);
    let configuration = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": replicas}});
    let patch = Patch::Apply { configuration, force };
    world.registry.patch(&by, &def, NS, "d", "scale", &patch).await.map(|written| written.object.to_value())
}

#[tokio::test]
async fn an_applied_scale_owns_the_replicas_and_conflicts() {
    let world = World::new().await;
    world.create("deployments.apps", deployment("d")).await.unwrap();
    let refused = apply(&world, "m1", 5, false).await.unwrap_err();
    assert_eq!(refused.code, 409);
    assert!(refused.message.ends_with("using autoscaling/v1: .spec.replicas"), "{}", refused.message);
    assert_eq!(apply(&world, "m1", 5, true).await.unwrap()["spec"]["replicas"], 5);
    let object = world.get("deployments.apps", "d").await.unwrap();
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let owner = entries.iter().find(|entry| !entry["fieldsV1"]["f:spec"]["f:replicas"].is_null()).unwrap();
    assert_eq!(
        (&owner["manager"], &owner["operation"], &owner["subresource"]),
        (&json!("m1"), &json!("Apply"), &json!("scale"))
    );
    let refused = apply(&world, "m2", 6, false).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"m1\" with subresource \"scale\": .spec.replicas"
    );
    let same = apply(&world, "m2", 5, false).await.unwrap();
    assert_eq!(same["spec"]["replicas"], 5, "both own the same number");
}
