//! Watches: where they start, what they show, how they end.

use crate::world::*;
use futures::StreamExt;
use pintle_registry::{EventKind, Options, Watch, WatchEvent, WatchOptions};
use serde_json::{Value, json};
use std::time::Duration;

fn show(event: &WatchEvent) -> String {
    let name = event.object.to_value()["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    format!("{} {name}", event.kind.as_str())
}

async fn events(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.push(show(&watch.next().await.expect("an event")));
    }
    seen
}

fn from(revision: u64) -> WatchOptions {
    WatchOptions { resource_version: revision.to_string(), ..WatchOptions::default() }
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there() {
    let world = World::new().await;
    world.create("configmaps", config_map("a", "1")).await.unwrap();
    let mut watch = world.watch("configmaps", WatchOptions::default()).await.unwrap();
    world.merge("configmaps", "a", "", json!({"data": {"k": "2"}})).await.unwrap();
    world.delete("configmaps", "a", json!({})).await.unwrap();
    assert_eq!(events(&mut watch, 3).await, ["ADDED a", "MODIFIED a", "DELETED a"]);
}

#[tokio::test]
async fn a_watch_continues_after_a_list() {
    let world = World::new().await;
    let first = world.create("configmaps", config_map("a", "1")).await.unwrap();
    world.create("configmaps", config_map("b", "1")).await.unwrap();
    let mut watch = world.watch("configmaps", from(version(&first))).await.unwrap();
    world.create("configmaps", config_map("c", "1")).await.unwrap();
    world.create("secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})).await.unwrap();
    world.create("configmaps", config_map("d", "1")).await.unwrap();
    assert_eq!(events(&mut watch, 3).await, ["ADDED b", "ADDED c", "ADDED d"]);
}

#[tokio::test]
async fn objects_come_and_go_with_the_selector() {
    let world = World::new().await;
    let options = WatchOptions { labels: labels("app=web"), ..WatchOptions::default() };
    let mut watch = world.watch("configmaps", options).await.unwrap();
    let other = world.create("configmaps", labelled("a", "db")).await.unwrap();
    let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
    world.merge("configmaps", "a", "", label("web")).await.unwrap();
    world.merge("configmaps", "a", "", json!({"data": {"x": "y"}})).await.unwrap();
    let last = world.merge("configmaps", "a", "", label("db")).await.unwrap();
    world.delete("configmaps", "a", json!({})).await.unwrap();
    assert_eq!(events(&mut watch, 2).await, ["ADDED a", "MODIFIED a"]);
    let gone = watch.next().await.unwrap();
    let object = gone.object.to_value();
    assert_eq!((gone.kind, version(&object)), (EventKind::Deleted, version(&last)), "under the revision of the change");
    assert_eq!(object["metadata"]["labels"]["app"], "web", "as it was when it matched");
    assert!(version(&other) < version(&last));
}

#[tokio::test]
async fn watchers_of_a_node_see_its_pods_only() {
    let world = World::new().await;
    let of_node =
        |node: &str| WatchOptions { fields: fields(&format!("spec.nodeName={node}")), ..WatchOptions::default() };
    let mut first = world.watch("pods", of_node("n1")).await.unwrap();
    let mut second = world.watch("pods", of_node("n2")).await.unwrap();
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        world.create("pods", pod(name)).await.unwrap();
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
        world.post("pods", name, "binding", binding).await.unwrap();
    }
    world.merge("pods", "a", "status", json!({"status": {"phase": "Running"}})).await.unwrap();
    assert_eq!(events(&mut first, 2).await, ["ADDED a", "MODIFIED a"]);
    assert_eq!(events(&mut second, 1).await, ["ADDED b"]);
}

#[tokio::test]
async fn a_frame_is_made_once_for_all() {
    let world = World::new().await;
    let mut first = world.watch("configmaps", WatchOptions::default()).await.unwrap();
    let mut second = world.watch("configmaps", WatchOptions::default()).await.unwrap();
    let created = world.create("configmaps", config_map("a", "1")).await.unwrap();
    let frames = [first.next().await.unwrap().frame(), second.next().await.unwrap().frame()];
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr());
    assert!(frames[0].ends_with(b"}\n"));
    let value: Value = serde_json::from_slice(&frames[0]).unwrap();
    assert_eq!((&value["type"], &value["object"]), (&json!("ADDED"), &created));
}

#[tokio::test]
async fn the_forgotten_past_is_expired() {
    let world = World::with(Options { history_events: 2, ..Options::default() }).await;
    let first = world.create("configmaps", config_map("a", "0")).await.unwrap();
    for i in 1..6 {
        world.merge("configmaps", "a", "", json!({"data": {"k": i.to_string()}})).await.unwrap();
    }
    let mut watch = world.watch("configmaps", from(version(&first))).await.unwrap();
    let event = watch.next().await.unwrap();
    let status = event.object.to_value();
    assert_eq!((event.kind, &status["code"], &status["reason"]), (EventKind::Error, &json!(410), &json!("Expired")));
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("too old resource version: {} (", version(&first))), "{message}");
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_how_far_it_is() {
    let world = World::new().await;
    world.create("configmaps", config_map("a", "1")).await.unwrap();
    let options = WatchOptions {
        allow_bookmarks: true,
        send_initial_events: Some(true),
        timeout: Some(Duration::from_secs(90)),
        ..WatchOptions::default()
    };
    let mut watch = world.watch("configmaps", options).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["ADDED a"]);
    let bookmark = watch.next().await.unwrap();
    let object = bookmark.object.to_value();
    assert_eq!(bookmark.kind, EventKind::Bookmark);
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let elsewhere = world.create("secrets", secret).await.unwrap();
    let periodic = watch.next().await.unwrap().object.to_value();
    assert_eq!(version(&periodic), version(&elsewhere), "changes of other resources count");
    assert!(periodic["metadata"].get("annotations").is_none());
    assert_eq!(watch.next().await.unwrap().kind, EventKind::Bookmark, "one at the end");
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_with_everything_says_when_it_has_it() {
    let world = World::new().await;
    let last = world.create("configmaps", config_map("a", "1")).await.unwrap();
    for (resource_version, send_initial_events) in
        [("", None), ("0", None), ("", Some(true)), ("0", Some(true)), (&*version(&last).to_string(), Some(true))]
    {
        let options = WatchOptions {
            resource_version: resource_version.into(),
            send_initial_events,
            allow_bookmarks: true,
            ..WatchOptions::default()
        };
        let mut watch = world.watch("configmaps", options).await.unwrap();
        assert_eq!(events(&mut watch, 1).await, ["ADDED a"]);
        let bookmark = watch.next().await.unwrap().object.to_value();
        let expected = json!({"resourceVersion": version(&last).to_string(),
                              "annotations": {"k8s.io/initial-events-end": "true"}});
        assert_eq!(bookmark["metadata"], expected, "{resource_version:?} {send_initial_events:?}");
    }
    let nothing = WatchOptions { send_initial_events: Some(false), allow_bookmarks: true, ..WatchOptions::default() };
    let mut watch = world.watch("configmaps", nothing).await.unwrap();
    world.create("configmaps", config_map("b", "1")).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["ADDED b"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_can_begin_in_the_future() {
    let world = World::new().await;
    let now = version(&world.create("configmaps", config_map("a", "1")).await.unwrap());
    let mut watch = world.watch("configmaps", from(now + 2)).await.unwrap();
    for name in ["b", "c", "d"] {
        world.create("configmaps", config_map(name, "1")).await.unwrap();
    }
    assert_eq!(events(&mut watch, 1).await, ["ADDED d"], "what comes after the revision that was asked for");
    let whole = WatchOptions { send_initial_events: Some(true), ..from(now + 100) };
    let mut watch = world.watch("configmaps", whole).await.unwrap();
    let event = watch.next().await.unwrap();
    let status = event.object.to_value();
    assert_eq!((event.kind, &status["code"]), (EventKind::Error, &json!(504)));
    let message = format!("Timeout: Too large resource version: {}, current: {}", now + 100, now + 3);
    assert_eq!(status["message"], message);
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_bookmarks_just_ends() {
    let world = World::new().await;
    let options = WatchOptions { timeout: Some(Duration::from_secs(5)), ..WatchOptions::default() };
    assert!(world.watch("configmaps", options).await.unwrap().next().await.is_none());
    let bad = WatchOptions { resource_version: "x".into(), ..WatchOptions::default() };
    let refused = world.watch("configmaps", bad).await.err().unwrap();
    assert_eq!(
        (refused.code, &*refused.message),
        (500, "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax")
    );
}

#[tokio::test]
async fn a_slow_watcher_is_let_go() {
    let world = World::new().await;
    world.create("configmaps", config_map("a", "0")).await.unwrap();
    let mut watch = world.watch("configmaps", WatchOptions::default()).await.unwrap();
    for i in 0..1100 {
        world.merge("configmaps", "a", "", json!({"data": {"k": i.to_string()}})).await.unwrap();
    }
    world.get("configmaps", "a").await.unwrap();
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert!(seen > 1000 && seen < 1101, "{seen} events, then the end");
}

#[tokio::test]
async fn watches_end_with_the_registry() {
    let world = World::new().await;
    let mut watch = world.watch("configmaps", WatchOptions::default()).await.unwrap();
    drop(world);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn custom_resources_come_and_go() {
    let world = World::new().await;
    let mut widget = pintle_kinds::ResourceDef::clone(&world.def("configmaps"));
    (widget.group, widget.resource, widget.kind) = ("x.io".into(), "widgets".into(), "Widget".into());
    let mut storage = (*widget.storage).clone();
    storage.group = "x.io".into();
    storage.resource = "widgets".into();
    storage.kind = "Widget".into();
    storage.key_prefix = "/registry/x.io/widgets".into();
    widget.storage = storage.into();
    let by = requester();
    let object = || json!({"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "w"}});
    let unknown = world.registry.create(&by.request(), &widget, NS, object()).await.unwrap_err();
    assert_eq!(unknown.code, 404);
    world.registry.set_table(world.table.with([widget.clone()]).into()).await.unwrap();
    world.registry.create(&by.request(), &widget, NS, object()).await.unwrap();
    let mut watch = world.registry.watch(&widget, NS, &WatchOptions::default()).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["ADDED w"]);
    world.registry.set_table(world.table.clone()).await.unwrap();
    assert!(watch.next().await.is_none(), "its watches end");
    world.registry.set_table(world.table.with([widget.clone()]).into()).await.unwrap();
    assert!(world.registry.get(&widget, NS, "w", &Default::default()).await.is_ok(), "its objects are still there");
}
