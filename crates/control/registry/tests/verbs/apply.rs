//! Server-side apply, and who owns which field.

use crate::world::*;
use pintle_registry::{AdmitAll, Patch, Request, UserInfo, Written};
use pintle_types::Status;
use serde_json::{Value, json};

async fn apply(world: &World, manager: &str, name: &str, configuration: Value, force: bool) -> Result<Written, Status> {
    let (user, def) = (UserInfo::default(), world.def("configmaps"));
    let by = Request::new(&user, &AdmitAll, manager);
    world.registry.patch(&by, &def, NS, name, "", &Patch::Apply { configuration, force }).await
}

#[tokio::test]
async fn an_apply_creates_and_then_changes() {
    let world = World::new().await;
    let first = apply(&world, "m1", "a", config_map("a", "1"), false).await.unwrap();
    assert!(first.created);
    let entry = first.object.to_value()["metadata"]["managedFields"][0].clone();
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("m1"), &json!("Apply")));
    world.advance(60);
    let same = apply(&world, "m1", "a", config_map("a", "1"), false).await.unwrap();
    assert!(!same.created);
    assert_eq!(version(&same.object.to_value()), version(&first.object.to_value()), "nothing changed");
    let changed = apply(&world, "m1", "a", config_map("a", "2"), false).await.unwrap().object.to_value();
    assert_eq!(changed["data"]["k"], "2");
}

#[tokio::test]
async fn a_field_of_another_manager_is_a_conflict() {
    let world = World::new().await;
    apply(&world, "m1", "a", config_map("a", "1"), false).await.unwrap();
    let conflict = apply(&world, "m2", "a", config_map("a", "2"), false).await.unwrap_err();
    assert_eq!(conflict.code, 409);
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"m1\": .data.k");
    let causes = conflict.details.unwrap().causes;
    assert_eq!((&*causes[0].reason, &*causes[0].message), ("FieldManagerConflict", "conflict with \"m1\""));
    let forced = apply(&world, "m2", "a", config_map("a", "2"), true).await.unwrap().object.to_value();
    assert_eq!(forced["data"]["k"], "2");
}

#[tokio::test]
async fn a_configuration_names_its_own_object() {
    let world = World::new().await;
    let wrong = apply(&world, "m1", "x", config_map("other", "1"), false).await.unwrap_err();
    assert_eq!(wrong.message, "the name of the object (other) does not match the name on the URL (x)");
}
