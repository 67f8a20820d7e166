//! The scale subresource.

use crate::world::*;
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
