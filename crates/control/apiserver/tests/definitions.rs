//! Definitions of custom resources: what is served after they change, and what becomes of objects stored before.

mod support;

use futures::StreamExt;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use pintle_client::Transport;
use pintle_store::{EmbeddedStore, Store};
use serde_json::{Value, json};
use std::sync::Arc;
use support::{Cluster, request};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GADGETS: &str = "/apis/g.io/v1/namespaces/default/gadgets";

fn definition(properties: Value) -> Value {
    json!({"metadata": {"name": "gadgets.g.io"}, "spec": {
        "group": "g.io", "scope": "Namespaced",
        "names": {"plural": "gadgets", "kind": "Gadget", "shortNames": ["gd"]},
        "versions": [{
            "name": "v1", "served": true, "storage": true, "deprecated": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": properties}}}},
        }],
    }})
}

/// Waits until a definition fits, from a watch that shows what is there first.
async fn until(cluster: &Cluster, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let path = format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let transport = cluster.server.local_transport(support::admin());
    let response = transport.call(request(Method::GET, &path, Value::Null)).await.unwrap();
    let mut frames = response.into_body().into_data_stream();
    while let Some(frame) = frames.next().await {
        let event: Value = serde_json::from_slice(&frame.unwrap()).unwrap();
        if fits(&event["object"]) {
            return event["object"].clone();
        }
    }
    panic!("the watch ended");
}

fn is_true(definition: &Value, kind: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

async fn define(cluster: &Cluster, object: Value) -> Value {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.create(DEFINITIONS, object).await;
    until(cluster, &name, |definition| is_true(definition, "Established")).await
}

#[tokio::test]
async fn stored_objects_follow_the_schema() {
    let cluster = Cluster::new().await;
    define(&cluster, definition(json!({"a": {"type": "string"}, "n": {"type": "integer"}}))).await;
    let gadget =
        json!({"apiVersion": "g.io/v1", "kind": "Gadget", "metadata": {"name": "x"}, "spec": {"a": "1", "n": 9}});
    cluster.create(GADGETS, gadget).await;
    let reply = cluster.get(&format!("{GADGETS}/x")).await;
    assert_eq!(reply.headers["warning"], "299 - \"g.io/v1 Gadget is deprecated\"");
    let schema = json!({"spec": {"versions": definition(json!({
        "n": {"type": "integer", "maximum": 5}, "c": {"type": "string", "default": "new"},
    }))["spec"]["versions"]}});
    let changed = cluster.admin(Method::PATCH, &format!("{DEFINITIONS}/gadgets.g.io"), schema).await;
    assert_eq!(changed.code, StatusCode::OK, "{changed:?}");
    // Names are settled again with every change; another definition comes after it.
    let mut other = definition(json!({}));
    other["metadata"]["name"] = "others.g.io".into();
    other["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    define(&cluster, other).await;
    let now = cluster.get(&format!("{GADGETS}/x")).await.json();
    assert_eq!(now["spec"], json!({"n": 9, "c": "new"}), "{now}");
    let path = format!("{GADGETS}/x");
    let labelled = cluster.admin(Method::PATCH, &path, json!({"metadata": {"labels": {"l": "1"}}})).await;
    assert_eq!(labelled.code, StatusCode::OK, "what did not change is not complained of: {labelled:?}");
    let worse = cluster.admin(Method::PATCH, &path, json!({"spec": {"n": 8}})).await;
    assert_eq!(worse.code, StatusCode::UNPROCESSABLE_ENTITY, "{worse:?}");
}

#[tokio::test]
async fn names_that_are_taken_are_refused_until_they_are_free() {
    let cluster = Cluster::new().await;
    define(&cluster, definition(json!({}))).await;
    let mut other = definition(json!({}));
    other["metadata"]["name"] = "others.g.io".into();
    other["spec"]["names"] = json!({"plural": "others", "kind": "Other", "shortNames": ["gd"]});
    cluster.create(DEFINITIONS, other).await;
    let refused =
        until(&cluster, "others.g.io", |d| d["status"]["conditions"][0]["reason"] == "ShortNamesConflict").await;
    assert_eq!(refused["status"]["conditions"][0]["message"], "\"gd\" is already in use");
    assert_eq!(cluster.get("/apis/g.io/v1/namespaces/default/others").await.code, StatusCode::NOT_FOUND);
    let deleted = cluster.admin(Method::DELETE, &format!("{DEFINITIONS}/gadgets.g.io"), Value::Null).await;
    assert_eq!(deleted.json()["kind"], "CustomResourceDefinition", "{deleted:?}");
    until(&cluster, "others.g.io", |d| is_true(d, "Established")).await;
}

#[tokio::test]
async fn open_api_shows_a_definition_at_once_and_forgets_it() {
    let cluster = Cluster::new().await;
    let before = cluster.get("/openapi/v3").await.json();
    assert!(before["paths"]["apis/g.io/v1"].is_null());
    define(&cluster, definition(json!({"a": {"type": "string", "nullable": true}}))).await;
    let index = cluster.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/g.io/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = cluster.get(&url).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert!(document.json()["components"]["schemas"]["io.g.v1.Gadget"].is_object());
    let moved = cluster.get("/openapi/v3/apis/g.io/v1?hash=OLD").await;
    assert_eq!((moved.code, &moved.headers["location"]), (StatusCode::MOVED_PERMANENTLY, &url.parse().unwrap()));
    let swagger = cluster.get("/openapi/v2").await.json();
    let spec = &swagger["definitions"]["io.g.v1.Gadget"]["properties"]["spec"];
    assert_eq!(spec["properties"]["a"], json!({}));
    let deleted = "?propagationPolicy=Background";
    cluster.admin(Method::DELETE, &format!("{DEFINITIONS}/gadgets.g.io{deleted}"), Value::Null).await;
}

#[tokio::test]
async fn rules_hold_for_objects_and_their_changes() {
    let cluster = Cluster::new().await;
    let mut ruled = definition(json!({"n": {"type": "integer"}}));
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations";
    let spec = ruled.pointer_mut(at.rsplit_once('/').unwrap().0).unwrap();
    spec["x-kubernetes-validations"] = json!([
        {"rule": "self.n < 10", "message": "too much"}, {"rule": "self.n >= oldSelf.n", "message": "no way back"},
    ]);
    define(&cluster, ruled.clone()).await;
    let gadget =
        |n: i32| json!({"apiVersion": "g.io/v1", "kind": "Gadget", "metadata": {"name": "x"}, "spec": {"n": n}});
    let refused = cluster.admin(Method::POST, GADGETS, gadget(11)).await;
    assert_eq!(refused.message(), "Gadget.g.io \"x\" is invalid: spec: Invalid value: too much");
    cluster.create(GADGETS, gadget(5)).await;
    let back = cluster.admin(Method::PATCH, &format!("{GADGETS}/x"), json!({"spec": {"n": 4}})).await;
    assert_eq!(back.code, StatusCode::UNPROCESSABLE_ENTITY, "{back:?}");
    ruled["metadata"]["name"] = "others.g.io".into();
    ruled["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    ruled.pointer_mut(at).unwrap()[0]["rule"] = "self.none".into();
    let wrong = cluster.admin(Method::POST, DEFINITIONS, ruled).await;
    assert!(wrong.message().contains("undefined field 'none'"), "{wrong:?}");
}

#[tokio::test]
async fn a_definition_made_again_has_its_own_schema_and_objects() {
    let cluster = Cluster::new().await;
    define(&cluster, definition(json!({"a": {"type": "string"}}))).await;
    let gadget = json!({"apiVersion": "g.io/v1", "kind": "Gadget", "metadata": {"name": "x"}, "spec": {"a": "1"}});
    cluster.create(GADGETS, gadget).await;
    let path = format!("{DEFINITIONS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan");
    let transport = cluster.server.local_transport(support::admin());
    let watch = transport.call(request(Method::GET, &path, Value::Null)).await.unwrap();
    let mut frames = watch.into_body().into_data_stream();
    cluster.admin(Method::DELETE, &format!("{DEFINITIONS}/gadgets.g.io"), Value::Null).await;
    let deleted = |frame: &[u8]| {
        // Events that come at a time are sent together.
        let events = serde_json::Deserializer::from_slice(frame).into_iter::<Value>();
        events.map(Result::unwrap).any(|event| event["type"] == "DELETED")
    };
    while let Some(frame) = frames.next().await {
        if deleted(&frame.unwrap()) {
            break;
        }
    }
    define(&cluster, definition(json!({"b": {"type": "string"}}))).await;
    let list = cluster.get(GADGETS).await.json();
    assert_eq!(list["items"], json!([]));
    let gadget =
        json!({"apiVersion": "g.io/v1", "kind": "Gadget", "metadata": {"name": "x"}, "spec": {"a": "1", "b": "2"}});
    assert_eq!(cluster.create(GADGETS, gadget).await["spec"], json!({"b": "2"}));
}

#[tokio::test]
async fn a_server_that_starts_goes_on_with_a_deletion() {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let first = Cluster::over(store.clone(), |_, _| {}).await;
    define(&first, definition(json!({}))).await;
    let held = json!({"apiVersion": "g.io/v1", "kind": "Gadget",
        "metadata": {"name": "held", "finalizers": ["example.com/hold"]}, "spec": {}});
    first.create(GADGETS, held).await;
    let path = format!("{DEFINITIONS}/gadgets.g.io");
    let marked = first.admin(Method::DELETE, &path, Value::Null).await.json();
    assert!(is_true(&marked, "Terminating"), "{marked}");
    drop(first);

    let second = Cluster::over(store, |_, _| {}).await;
    let object = format!("{GADGETS}/held");
    assert_eq!(second.get(&object).await.code, StatusCode::OK, "the definition waits for its objects");
    assert!(is_true(&second.get(&path).await.json(), "Terminating"));
    let transport = second.server.local_transport(support::admin());
    let watch = request(Method::GET, &format!("{DEFINITIONS}?watch=1"), Value::Null);
    let mut frames = transport.call(watch).await.unwrap().into_body().into_data_stream();
    let released = second.admin(Method::PATCH, &object, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(released.code, StatusCode::OK);
    let gone = |frame: &[u8]| support::events(frame).iter().any(|event| event["type"] == "DELETED");
    while !gone(&frames.next().await.unwrap().unwrap()) {}
    assert_eq!(second.get(&path).await.code, StatusCode::NOT_FOUND);
}

/// What a watch shows next: the types of its events with the names of their objects.
async fn shown<S: futures::Stream<Item = Result<bytes::Bytes, E>> + Unpin, E: std::fmt::Debug>(
    frames: &mut S,
    count: usize,
) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    while all.len() < count {
        let frame = frames.next().await.unwrap().unwrap();
        let events = support::events(&frame);
        all.extend(events.iter().map(|event| (text(&event["type"]), text(&event["object"]["metadata"]["name"]))));
    }
    all
}

#[tokio::test]
async fn objects_are_selected_by_the_fields_that_a_definition_names() {
    let cluster = Cluster::new().await;
    let mut selectable = definition(json!({
        "color": {"type": "string"}, "size": {"type": "integer"}, "round": {"type": "boolean"},
    }));
    let fields = [".spec.color", ".spec.size", ".spec.round"].map(|path| json!({"jsonPath": path}));
    selectable["spec"]["versions"][0]["selectableFields"] = json!(fields);
    selectable["spec"]["names"]["categories"] = json!(["all"]);
    define(&cluster, selectable).await;
    let found = cluster.get("/apis/g.io/v1").await.json();
    let gadgets = &found["resources"][0];
    assert_eq!((&gadgets["shortNames"], &gadgets["categories"]), (&json!(["gd"]), &json!(["all"])), "{found}");
    assert_eq!((&gadgets["singularName"], &gadgets["kind"]), (&json!("gadget"), &json!("Gadget")));

    let gadget = |name: &str, spec: Value| json!({"apiVersion": "g.io/v1", "kind": "Gadget", "metadata": {"name": name}, "spec": spec});
    cluster.create(GADGETS, gadget("a", json!({"color": "red", "size": 1, "round": true}))).await;
    cluster.create(GADGETS, gadget("b", json!({"color": "blue", "size": 2, "round": false}))).await;
    cluster.create(GADGETS, gadget("c", json!({}))).await;
    for (selector, expected) in [
        ("spec.color=red", vec!["a"]),
        ("spec.color!=red", vec!["b", "c"]),
        ("spec.color=", vec!["c"]),
        ("spec.size=2", vec!["b"]),
        ("spec.round=true,spec.color=red", vec!["a"]),
        ("spec.round=false", vec!["b"]),
        ("metadata.name=b,spec.color=red", vec![]),
        ("metadata.namespace=default,spec.size=1", vec!["a"]),
    ] {
        let list = cluster.get(&format!("{GADGETS}?fieldSelector={}", selector.replace('=', "%3D"))).await.json();
        let names: Vec<&str> =
            list["items"].as_array().unwrap().iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
        assert_eq!(names, expected, "{selector}");
    }
    let unknown = cluster.get(&format!("{GADGETS}?fieldSelector=spec.other%3Dx")).await;
    let words = "field label not supported: spec.other";
    assert_eq!((unknown.code, &*unknown.message()), (StatusCode::BAD_REQUEST, words));

    // Objects enter and leave the selection as their fields change.
    let version = cluster.get(GADGETS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("{GADGETS}?watch=1&resourceVersion={version}&fieldSelector=spec.color%3Dred");
    let transport = cluster.server.local_transport(support::admin());
    let watch = transport.call(request(Method::GET, &path, Value::Null)).await.unwrap();
    let mut frames = watch.into_body().into_data_stream();
    let paint = async |name: &str, color: Value| {
        let painted =
            cluster.admin(Method::PATCH, &format!("{GADGETS}/{name}"), json!({"spec": {"color": color}})).await;
        assert_eq!(painted.code, StatusCode::OK, "{painted:?}");
    };
    paint("b", "red".into()).await;
    paint("c", "green".into()).await;
    paint("a", "blue".into()).await;
    cluster.admin(Method::PATCH, &format!("{GADGETS}/b"), json!({"spec": {"size": 3}})).await;
    paint("b", Value::Null).await;
    paint("c", "red".into()).await;
    cluster.admin(Method::DELETE, &format!("{GADGETS}/c"), Value::Null).await;
    let expected =
        [("ADDED", "b"), ("DELETED", "a"), ("MODIFIED", "b"), ("DELETED", "b"), ("ADDED", "c"), ("DELETED", "c")];
    let expected: Vec<_> = expected.map(|(kind, name)| (kind.to_owned(), name.to_owned())).into();
    assert_eq!(shown(&mut frames, expected.len()).await, expected);
}
