//! Deleting: grace periods, finalizers, preconditions, collections.

use crate::world::*;
use pintle_registry::{Deletion, ListOptions};
use serde_json::{Value, json};

fn object(deletion: Deletion) -> Value {
    match deletion {
        Deletion::Object(object) => object.to_value(),
        Deletion::Done(status) => panic!("it is gone: {status:?}"),
    }
}

#[tokio::test]
async fn what_is_deleted_is_gone() {
    let world = World::new().await;
    let created = world.create("configmaps", config_map("a", "1")).await.unwrap();
    let Deletion::Done(status) = world.delete("configmaps", "a", json!({})).await.unwrap() else {
        panic!("still there")
    };
    let details = status.details.unwrap();
    assert_eq!((&*status.status, &*details.kind, &*details.name), ("Success", "configmaps", "a"));
    assert_eq!(created["metadata"]["uid"], *details.uid);
    assert_eq!(world.get("configmaps", "a").await.unwrap_err().code, 404);
    assert_eq!(world.delete("configmaps", "a", json!({})).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn finalizers_keep_an_object_until_they_are_gone() {
    let world = World::new().await;
    let mut given = config_map("a", "1");
    given["metadata"]["finalizers"] = json!(["x.io/f"]);
    world.create("configmaps", given).await.unwrap();
    let marked = object(world.delete("configmaps", "a", json!({})).await.unwrap());
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    world.advance(10);
    let again = object(world.delete("configmaps", "a", json!({})).await.unwrap());
    assert_eq!(again["metadata"], marked["metadata"], "deleting twice changes nothing");
    let exists = world.create("configmaps", config_map("a", "1")).await.unwrap_err();
    assert_eq!(exists.message, "object is being deleted: configmaps \"a\" already exists");
    let more = world.merge("configmaps", "a", "", json!({"metadata": {"finalizers": ["x.io/f", "y.io/g"]}})).await;
    assert!(more.unwrap_err().message.contains("no new finalizers can be added if the object is being deleted"));
    let last = world.merge("configmaps", "a", "", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(last["metadata"]["deletionTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(world.get("configmaps", "a").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn definitions_are_held_until_their_objects_are_gone() {
    let (world, kind) = (World::new().await, "customresourcedefinitions.apiextensions.k8s.io");
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let given = json!({"metadata": {"name": "widgets.example.com", "finalizers": ["x.io/f"]}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let created = world.create(kind, given).await.unwrap();
    let delete = |options: Value| world.delete(kind, "widgets.example.com", options);

    let refused = delete(json!({"preconditions": {"uid": "wrong"}})).await.unwrap_err();
    assert_eq!(refused.code, 409);
    assert_eq!(world.get(kind, "widgets.example.com").await.unwrap(), created, "it is not to be deleted after all");

    let (by, def) = (requester(), world.def(kind));
    let mut request = by.request();
    request.dry_run = true;
    let tried = world.registry.delete(&request, &def, "", "widgets.example.com", &Default::default()).await;
    let tried = object(tried.unwrap());
    assert_eq!(world.get(kind, "widgets.example.com").await.unwrap(), created, "that was only tried");
    let mut marked = object(delete(json!({"propagationPolicy": "Foreground"})).await.unwrap());
    marked["metadata"]["resourceVersion"] = tried["metadata"]["resourceVersion"].clone();
    assert_eq!(tried, marked, "trying shows what deleting does");
    let finalizers = json!(["x.io/f", "customresourcecleanup.apiextensions.k8s.io"]);
    assert_eq!(marked["metadata"]["finalizers"], finalizers);
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(marked["metadata"]["managedFields"], created["metadata"]["managedFields"]);
    assert_eq!(
        marked["status"]["conditions"],
        json!([{
        "type": "Terminating", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z",
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"}])
    );

    world.advance(10);
    let again = object(delete(json!({})).await.unwrap());
    assert_eq!(again["metadata"]["deletionTimestamp"], "2026-01-02T03:04:05Z", "deleting twice changes nothing");
    let last = world.merge(kind, "widgets.example.com", "", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(last.unwrap()["metadata"]["deletionTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(world.get(kind, "widgets.example.com").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_policy_becomes_a_finalizer() {
    for (options, expected) in [
        (json!({"propagationPolicy": "Foreground"}), Some("foregroundDeletion")),
        (json!({"propagationPolicy": "Orphan"}), Some("orphan")),
        (json!({"orphanDependents": true}), Some("orphan")),
        (json!({"propagationPolicy": "Background"}), None),
        (json!({}), None),
    ] {
        let world = World::new().await;
        world.create("deployments.apps", deployment("d")).await.unwrap();
        match (world.delete("deployments.apps", "d", options.clone()).await.unwrap(), expected) {
            (Deletion::Done(_), None) => {}
            (Deletion::Object(object), Some(expected)) => {
                let object = object.to_value();
                assert_eq!(object["metadata"]["finalizers"], json!([expected]), "{options}");
                assert_eq!(object["metadata"]["generation"], 2);
            }
            (other, _) => panic!("{options}: {other:?}"),
        }
    }
    let world = World::new().await;
    let both = world.delete("configmaps", "a", json!({"propagationPolicy": "Orphan", "orphanDependents": true})).await;
    assert!(both.unwrap_err().message.contains("orphanDependents and deletionPropagation cannot be both set"));
    let wrong = world.delete("configmaps", "a", json!({"propagationPolicy": "Never"})).await.unwrap_err();
    assert!(wrong.message.contains("supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""));
}

#[tokio::test]
async fn preconditions_protect_another_object() {
    let world = World::new().await;
    let uid = world.create("configmaps", config_map("a", "1")).await.unwrap()["metadata"]["uid"].clone();
    let wrong = world.delete("configmaps", "a", json!({"preconditions": {"uid": "wrong"}})).await.unwrap_err();
    assert_eq!(
        wrong.message,
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (wrong) does not match the UID \
             in record ({}). The object might have been deleted and then recreated",
            uid.as_str().unwrap()
        )
    );
    let old = world.delete("configmaps", "a", json!({"preconditions": {"resourceVersion": "1"}})).await.unwrap_err();
    assert_eq!(old.code, 409);
    world.delete("configmaps", "a", json!({"preconditions": {"uid": uid}})).await.unwrap();
}

#[tokio::test]
async fn a_pod_on_a_node_gets_its_grace_period() {
    let world = World::new().await;
    world.create("pods", pod("p")).await.unwrap();
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    world.post("pods", "p", "binding", binding).await.unwrap();
    let marked = object(world.delete("pods", "p", json!({})).await.unwrap());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-02T03:04:35Z");
    let longer = object(world.delete("pods", "p", json!({"gracePeriodSeconds": 60})).await.unwrap());
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30, "it can only be made shorter");
    let shorter = object(world.delete("pods", "p", json!({"gracePeriodSeconds": 5})).await.unwrap());
    assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-02T03:04:10Z");
    assert!(world.get("pods", "p").await.is_ok());
    world.delete("pods", "p", json!({"gracePeriodSeconds": 0})).await.unwrap();
    assert_eq!(world.get("pods", "p").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once() {
    let world = World::new().await;
    world.create("pods", pod("p")).await.unwrap();
    let last = object(world.delete("pods", "p", json!({})).await.unwrap());
    assert_eq!(last["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(world.get("pods", "p").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_namespace_is_finalized_before_it_goes() {
    let world = World::new().await;
    let given = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    let created = world.create("namespaces", given).await.unwrap();
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    let marked = object(world.delete("namespaces", "team", json!({})).await.unwrap());
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let refused = world.delete("namespaces", "team", json!({})).await.unwrap_err();
    assert!(refused.message.contains("The system is ensuring all content is removed from this namespace."));
    let mut finalized = marked;
    finalized["spec"]["finalizers"] = json!([]);
    world.update("namespaces", "finalize", finalized).await.unwrap();
    assert_eq!(world.get("namespaces", "team").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_collection_is_what_a_list_shows() {
    let world = World::new().await;
    for (name, app) in [("a", "web"), ("b", "web"), ("c", "db")] {
        world.create("configmaps", labelled(name, app)).await.unwrap();
    }
    let (by, def) = (requester(), world.def("configmaps"));
    let which = ListOptions { labels: labels("app=web"), ..ListOptions::default() };
    let list = world.registry.delete_collection(&by.request(), &def, NS, &Default::default(), &which).await.unwrap();
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!(names(&world.list("configmaps", ListOptions::default()).await.unwrap()), ["c"]);
}
