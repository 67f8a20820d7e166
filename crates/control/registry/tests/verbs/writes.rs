//! Creating, updating and patching.

use crate::world::*;
use pintle_registry::{Admission, Attributes, Operation, Patch, Request, UserInfo};
use pintle_types::{Reason, Status};
use serde_json::{Value, json};

#[tokio::test]
async fn a_new_object_gets_its_identity() {
    let world = World::new().await;
    let mut given = config_map("a", "1");
    given["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    given["metadata"]["selfLink"] = "/x".into();
    given["metadata"]["uid"] = "mine".into();
    let created = world.create("configmaps", given).await.unwrap();
    let metadata = &created["metadata"];
    assert_eq!(metadata["creationTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(metadata["namespace"], NS);
    assert_eq!(metadata["uid"].as_str().map(str::len), Some(36));
    assert!(metadata.get("deletionTimestamp").is_none() && metadata.get("selfLink").is_none());
    assert_eq!(metadata["managedFields"][0]["manager"], "tester");
    assert_eq!(world.get("configmaps", "a").await.unwrap(), created);
}

#[tokio::test]
async fn names_are_taken_once() {
    let world = World::new().await;
    world.create("configmaps", config_map("a", "1")).await.unwrap();
    let again = world.create("configmaps", config_map("a", "2")).await.unwrap_err();
    assert_eq!((again.code, again.reason), (409, Reason::AlreadyExists));
    assert_eq!(again.message, "configmaps \"a\" already exists");
    assert_eq!(world.get("configmaps", "a").await.unwrap()["data"]["k"], "1");
}

#[tokio::test]
async fn names_are_generated() {
    let world = World::new().await;
    let given = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}});
    let (a, b) =
        (world.create("configmaps", given.clone()).await.unwrap(), world.create("configmaps", given).await.unwrap());
    for object in [&a, &b] {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    }
    assert_ne!(a["metadata"]["name"], b["metadata"]["name"]);
}

#[tokio::test]
async fn bad_objects_are_refused_in_upstreams_words() {
    let world = World::new().await;
    for (change, code, expected) in [
        (
            json!({"name": ""}),
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            json!({"name": "q", "namespace": "other"}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            json!({"name": "q", "resourceVersion": "5"}),
            500,
            "resourceVersion should not be set on objects to be created",
        ),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": change});
        let refused = world.create("configmaps", object).await.unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (code, expected));
    }
    assert!(world.list("configmaps", Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn an_update_replaces_what_it_read() {
    let world = World::new().await;
    let created = world.create("configmaps", config_map("a", "1")).await.unwrap();
    let mut changed = created.clone();
    changed["data"]["k"] = "2".into();
    let updated = world.update("configmaps", "", changed.clone()).await.unwrap();
    assert!(version(&updated) > version(&created));
    assert_eq!(updated["metadata"]["uid"], created["metadata"]["uid"]);
    let stale = world.update("configmaps", "", changed).await.unwrap_err();
    assert_eq!(
        (stale.code, stale.message.as_str()),
        (
            409,
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes \
             to the latest version and try again"
        )
    );
    let unconditional = world.update("configmaps", "", config_map("a", "3")).await.unwrap();
    assert_eq!(unconditional["metadata"]["creationTimestamp"], created["metadata"]["creationTimestamp"]);
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let world = World::new().await;
    let created = world.create("deployments.apps", deployment("d")).await.unwrap();
    world.advance(60);
    let updated = world.update("deployments.apps", "", created.clone()).await.unwrap();
    assert_eq!(updated, created);
    let patched = world.merge("deployments.apps", "d", "", json!({"spec": {"replicas": 2}})).await.unwrap();
    assert_eq!(version(&patched), version(&created));
}

#[tokio::test]
async fn another_object_of_the_same_name_is_not_updated() {
    let world = World::new().await;
    let uid = world.create("configmaps", config_map("a", "1")).await.unwrap()["metadata"]["uid"].clone();
    let mut other = config_map("a", "2");
    other["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    let refused = world.update("configmaps", "", other).await.unwrap_err();
    assert_eq!(
        refused.message,
        format!(
            "Operation cannot be fulfilled on configmaps \"a\": StorageError: invalid object, Code: 4, Key: \
             /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
             precondition: 00000000-0000-0000-0000-000000000000, UID in object meta: {}",
            uid.as_str().unwrap()
        )
    );
}

#[tokio::test]
async fn paths_and_bodies_agree() {
    let world = World::new().await;
    world.create("configmaps", config_map("a", "1")).await.unwrap();
    let (by, def) = (requester(), world.def("configmaps"));
    let update = |object| {
        let (by, def, world) = (&by, &def, &world);
        async move { world.registry.update(&by.request(), def, NS, "a", "", object).await.map(drop) }
    };
    let wrong = update(config_map("other", "1")).await.unwrap_err();
    assert_eq!(wrong.message, "the name of the object (other) does not match the name on the URL (a)");
    let missing = world.update("configmaps", "", config_map("missing", "1")).await.unwrap_err();
    assert_eq!((missing.code, missing.message.as_str()), (404, "configmaps \"missing\" not found"));
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let world = World::new().await;
    let mut given = deployment("d");
    given["status"] = json!({"replicas": 9});
    let created = world.create("deployments.apps", given).await.unwrap();
    assert_eq!(created["metadata"]["generation"], 1);
    assert_ne!(created["status"]["replicas"], 9);
    let patch = json!({"spec": {"replicas": 5}, "status": {"replicas": 1}});
    let status = world.merge("deployments.apps", "d", "status", patch.clone()).await.unwrap();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(2), &json!(1)));
    assert_eq!(status["metadata"]["generation"], 1);
    let mut patch = patch;
    patch["status"]["replicas"] = 7.into();
    let spec = world.merge("deployments.apps", "d", "", patch).await.unwrap();
    assert_eq!((&spec["spec"]["replicas"], &spec["status"]["replicas"]), (&json!(5), &json!(1)));
    assert_eq!(spec["metadata"]["generation"], 2);
}

#[tokio::test]
async fn patches_of_each_kind_change_the_object() {
    let world = World::new().await;
    world.create("deployments.apps", deployment("d")).await.unwrap();
    let operations = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]);
    let written = world.patch("deployments.apps", "d", "", Patch::Json(operations)).await.unwrap();
    assert_eq!(written.object.to_value()["spec"]["replicas"], 3);
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "second", "image": "j"}]}}}});
    let written = world.patch("deployments.apps", "d", "", Patch::Strategic(strategic)).await.unwrap();
    let containers = written.object.to_value()["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!(containers.as_array().map(Vec::len), Some(2), "{containers}");
    let missing = json!([{"op": "remove", "path": "/metadata/labels/none"}]);
    let refused = world.patch("deployments.apps", "d", "", Patch::Json(missing)).await.unwrap_err();
    assert_eq!(
        (refused.code, &*refused.message),
        (422, "the server rejected our request due to an error in our request")
    );
    let unknown = json!({"spec": {"nope": 1}});
    let refused = world.merge("deployments.apps", "d", "", unknown).await.unwrap_err();
    assert!(refused.message.ends_with("strict decoding error: unknown field \"spec.nope\""), "{}", refused.message);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 1}});
    assert_eq!(world.merge("deployments.apps", "d", "", stale).await.unwrap_err().code, 409);
    assert_eq!(world.merge("deployments.apps", "none", "", json!({})).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn concurrent_patches_all_get_through() {
    let world = World::new().await;
    world.create("configmaps", config_map("a", "1")).await.unwrap();
    let patches = (0..16).map(|i| world.merge("configmaps", "a", "", json!({"data": {format!("k{i}"): "v"}})));
    for patched in futures::future::join_all(patches).await {
        patched.unwrap();
    }
    let data = world.get("configmaps", "a").await.unwrap()["data"].clone();
    assert_eq!(data.as_object().map(|data| data.len()), Some(17));
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let world = World::new().await;
    let (by, def) = (requester(), world.def("configmaps"));
    let mut request = by.request();
    request.dry_run = true;
    world.registry.create(&request, &def, NS, config_map("a", "1")).await.unwrap();
    assert_eq!(world.get("configmaps", "a").await.unwrap_err().code, 404);
    let created = world.create("configmaps", config_map("a", "1")).await.unwrap();
    assert_eq!(world.registry.create(&request, &def, NS, config_map("a", "1")).await.unwrap_err().code, 409);
    let merge = Patch::Merge(json!({"data": {"k": "2"}}));
    let patched = world.registry.patch(&request, &def, NS, "a", "", &merge).await.unwrap().object.to_value();
    assert_eq!(patched["data"]["k"], "2");
    world.registry.delete(&request, &def, NS, "a", &Default::default()).await.unwrap();
    assert_eq!(world.get("configmaps", "a").await.unwrap(), created);
}

/// Labels what is created, and refuses a value.
struct Plugins;

#[async_trait::async_trait]
impl Admission for Plugins {
    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if attributes.operation == Operation::Create
            && let Some(object) = &mut attributes.object
        {
            object["metadata"]["labels"] = json!({"seen": "yes"});
            attributes.warnings.push("labelled".into());
        }
        Ok(())
    }

    async fn validate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let value = |object: &Option<Value>| object.as_ref().map(|o| o["data"]["k"].clone());
        if value(&attributes.object) == Some("bad".into()) {
            return Err(Status::forbidden("", "configmaps", attributes.name, "no bad values"));
        }
        if attributes.operation == Operation::Delete {
            assert!(attributes.old_object.is_some() && attributes.object.is_none());
            return Err(Status::forbidden("", "configmaps", attributes.name, "it stays"));
        }
        Ok(())
    }
}

#[tokio::test]
async fn admission_changes_and_judges_every_write() {
    let world = World::new().await;
    let (user, def) = (UserInfo::default(), world.def("configmaps"));
    let by = Request::new(&user, &Plugins, "tester");
    let created = world.registry.create(&by, &def, NS, config_map("a", "1")).await.unwrap().to_value();
    assert_eq!(created["metadata"]["labels"]["seen"], "yes");
    assert_eq!(by.take_warnings(), ["labelled"]);
    let refused = world.registry.create(&by, &def, NS, config_map("b", "bad")).await.unwrap_err();
    assert_eq!(refused.message, "configmaps \"b\" is forbidden: no bad values");
    let merge = Patch::Merge(json!({"data": {"k": "bad"}}));
    assert_eq!(world.registry.patch(&by, &def, NS, "a", "", &merge).await.unwrap_err().code, 403);
    assert_eq!(world.registry.delete(&by, &def, NS, "a", &Default::default()).await.unwrap_err().code, 403);
    assert_eq!(world.get("configmaps", "a").await.unwrap()["data"]["k"], "1");
}

#[tokio::test]
async fn versions_share_one_storage() {
    let world = World::new().await;
    let core = world.table.get("", "v1", "events").unwrap().clone();
    let grouped = world.table.get("events.k8s.io", "v1", "events").unwrap().clone();
    let by = requester();
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "n",
        "reason": "R", "action": "A", "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "x.io/y", "reportingInstance": "i",
        "regarding": {"kind": "Pod", "namespace": NS, "name": "p"}});
    let created = world.registry.create(&by.request(), &grouped, NS, event).await.unwrap().to_value();
    assert_eq!((&created["apiVersion"], &created["note"]), (&json!("events.k8s.io/v1"), &json!("n")));
    let read = world.registry.get(&core, NS, "e", &Default::default()).await.unwrap().to_value();
    assert_eq!((&read["apiVersion"], &read["message"]), (&json!("v1"), &json!("n")));
    let back = world.registry.get(&grouped, NS, "e", &Default::default()).await.unwrap().to_value();
    assert_eq!(back["regarding"]["name"], "p");
    // Errors name it by the first group.
    let bad = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "f"}, "type": "Normal"});
    let refused = world.registry.create(&by.request(), &grouped, NS, bad).await.unwrap_err();
    assert!(refused.message.starts_with("Event \"f\" is invalid: "), "{}", refused.message);
}

#[tokio::test(start_paused = true)]
async fn events_are_forgotten_after_their_time() {
    let world = World::new().await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "R", "message": "m",
        "type": "Normal", "involvedObject": {"kind": "Pod", "namespace": NS, "name": "p"}});
    world.create("events", event).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3500)).await;
    assert!(world.get("events", "e").await.is_ok());
    tokio::time::sleep(std::time::Duration::from_secs(200)).await;
    assert_eq!(world.get("events", "e").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_revision_keeps_how_its_data_was_written() {
    let world = World::new().await;
    let (def, by) = (world.def("controllerrevisions.apps"), requester());
    let spaced = serde_json::from_str(r#"{"x": "y"}"#).unwrap();
    let revision = |name: &str| {
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": name}, "data": {"x": "y"},
            "revision": 1})
    };
    let written = |text| {
        let mut request = by.request();
        request.verbatim = text;
        request
    };
    world.registry.create(&written(Some(spaced)), &def, NS, revision("spaced")).await.unwrap();
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    // A patch is written without white space, which changes the data's bytes.
    let refused = world.merge("controllerrevisions.apps", "spaced", "", label.clone()).await.unwrap_err();
    assert_eq!(
        refused.message,
        "ControllerRevision.apps \"spaced\" is invalid: data: Invalid value: {\"x\":\"y\"}: field is immutable"
    );
    let mut again = revision("spaced");
    again["metadata"]["labels"] = json!({"a": "b"});
    let put = world.registry.update(&written(Some(spaced)), &def, NS, "spaced", "", again.clone()).await;
    assert_eq!(put.unwrap().object.to_value()["data"], json!({"x": "y"}));
    assert_eq!(
        world.registry.update(&written(None), &def, NS, "spaced", "", again).await.map_err(|e| e.code).err(),
        None
    );
    world.create("controllerrevisions.apps", revision("plain")).await.unwrap();
    world.merge("controllerrevisions.apps", "plain", "", label).await.unwrap();
}
