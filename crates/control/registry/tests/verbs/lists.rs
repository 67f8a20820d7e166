//! Lists: selectors, pages, revisions.

use crate::world::*;
use pintle_registry::{GetOptions, ListOptions, Options, VersionMatch};
use pintle_types::Reason;
use serde_json::{Value, json};

async fn five(world: &World) -> Vec<Value> {
    let mut created = Vec::new();
    for i in 0..5 {
        let app = if i % 2 == 0 { "even" } else { "odd" };
        created.push(world.create("configmaps", labelled(&format!("i{i}"), app)).await.unwrap());
    }
    created
}

#[tokio::test]
async fn selectors_choose() {
    let world = World::new().await;
    five(&world).await;
    for (label, field, expected) in [
        ("", "", vec!["i0", "i1", "i2", "i3", "i4"]),
        ("app=odd", "", vec!["i1", "i3"]),
        ("app!=odd", "metadata.name!=i0", vec!["i2", "i4"]),
        ("", "metadata.name=i1", vec!["i1"]),
        ("app=even", "metadata.name=i1", vec![]),
        ("", "metadata.namespace=other", vec![]),
        ("", "metadata.namespace=default,metadata.name=i4", vec!["i4"]),
    ] {
        let options = ListOptions { labels: labels(label), fields: fields(field), ..ListOptions::default() };
        let list = world.list("configmaps", options).await.unwrap();
        assert_eq!(names(&list), expected, "{label} {field}");
    }
    let options = ListOptions { fields: fields("data.k=v"), ..ListOptions::default() };
    assert_eq!(
        world.list("configmaps", options).await.unwrap_err().message,
        "\"data.k\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
    let options = ListOptions { fields: fields("spec.nope=v"), ..ListOptions::default() };
    assert_eq!(world.list("pods", options).await.unwrap_err().message, "field label not supported: spec.nope");
}

#[tokio::test]
async fn fields_of_the_kind_choose() {
    let world = World::new().await;
    world.create("pods", pod("bound")).await.unwrap();
    world.create("pods", pod("free")).await.unwrap();
    let binding = json!({"metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "n1"}});
    world.post("pods", "bound", "binding", binding).await.unwrap();
    for (field, expected) in
        [("spec.nodeName=n1", vec!["bound"]), ("spec.nodeName=", vec!["free"]), ("status.phase=Running", vec![])]
    {
        let options = ListOptions { fields: fields(field), ..ListOptions::default() };
        assert_eq!(names(&world.list("pods", options).await.unwrap()), expected, "{field}");
    }
}

#[tokio::test]
async fn all_namespaces_are_listed_together() {
    let world = World::new().await;
    let (by, def) = (requester(), world.def("configmaps"));
    for ns in ["a", "b"] {
        world.registry.create(&by.request(), &def, ns, config_map("x", ns)).await.unwrap();
    }
    let all = world.registry.list(&def, "", &ListOptions::default()).await.unwrap();
    assert_eq!(all.items.len(), 2);
    let options = ListOptions { fields: fields("metadata.namespace=b"), ..ListOptions::default() };
    assert_eq!(world.registry.list(&def, "", &options).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn pages_show_one_state() {
    let world = World::new().await;
    five(&world).await;
    let page = |token: &str| ListOptions { limit: 2, continue_token: token.into(), ..ListOptions::default() };
    let first = world.list("configmaps", page("")).await.unwrap();
    assert_eq!((names(&first), first.remaining), (vec!["i0".into(), "i1".into()], Some(3)));
    world.delete("configmaps", "i2", json!({})).await.unwrap();
    world.create("configmaps", labelled("i22", "odd")).await.unwrap();
    let second = world.list("configmaps", page(&first.continue_token)).await.unwrap();
    assert_eq!((names(&second), second.remaining), (vec!["i2".into(), "i3".into()], Some(1)));
    assert_eq!(second.revision, first.revision);
    let third = world.list("configmaps", page(&second.continue_token)).await.unwrap();
    assert_eq!((names(&third), third.continue_token.as_str(), third.remaining), (vec!["i4".into()], "", None));
    let bogus = world.list("configmaps", page("bogus")).await.unwrap_err();
    assert_eq!(bogus.message, "invalid continue token: continue key is not valid: illegal base64 data at input byte 4");
}

#[tokio::test]
async fn a_page_of_a_forgotten_state_can_be_left_inconsistent() {
    let world = World::with(Options { history_events: 1, ..Options::default() }).await;
    five(&world).await;
    let page = |token: &str| ListOptions { limit: 2, continue_token: token.into(), ..ListOptions::default() };
    let first = world.list("configmaps", page("")).await.unwrap();
    world.delete("configmaps", "i2", json!({})).await.unwrap();
    world.delete("configmaps", "i0", json!({})).await.unwrap();
    // A read of the newest state: from here on the cache has forgotten that of the first page.
    world.list("configmaps", ListOptions::default()).await.unwrap();
    let from_store = world.list("configmaps", page(&first.continue_token)).await.unwrap();
    assert_eq!(names(&from_store), ["i2", "i3"], "the store still knows");
    world.store.compact(world.store.revision().await.unwrap()).await.unwrap();
    let expired = world.list("configmaps", page(&first.continue_token)).await.unwrap_err();
    assert_eq!((expired.code, expired.reason), (410, Reason::Expired));
    let token = expired.metadata["continue"].as_str().unwrap();
    assert_eq!(names(&world.list("configmaps", page(token)).await.unwrap()), ["i3", "i4"]);
}

#[tokio::test]
async fn a_page_of_selected_objects_does_not_look_ahead() {
    let world = World::new().await;
    five(&world).await;
    let page = |token: &str, limit| ListOptions {
        limit,
        continue_token: token.into(),
        labels: labels("app=odd"),
        ..ListOptions::default()
    };
    let first = world.list("configmaps", page("", 2)).await.unwrap();
    assert_eq!(
        (names(&first), first.remaining),
        (vec!["i1".into(), "i3".into()], None),
        "i4 is not selected, but there"
    );
    let second = world.list("configmaps", page(&first.continue_token, 2)).await.unwrap();
    assert_eq!((names(&second), &*second.continue_token), (Vec::<String>::new(), ""));
    let all = world.list("configmaps", page("", 3)).await.unwrap();
    assert_eq!((all.items.len(), &*all.continue_token), (2, ""));
}

#[tokio::test]
async fn an_exact_revision_that_was_compacted_is_expired() {
    let world = World::with(Options { history_events: 1, ..Options::default() }).await;
    let created = five(&world).await;
    let old = version(&created[1]);
    world.store.compact(world.store.revision().await.unwrap()).await.unwrap();
    world.list("configmaps", ListOptions::default()).await.unwrap();
    let at = |version_match, limit| ListOptions {
        resource_version: old.to_string(),
        version_match,
        limit,
        ..ListOptions::default()
    };
    for options in [at(Some(VersionMatch::Exact), 0), at(None, 1)] {
        let expired = world.list("configmaps", options).await.unwrap_err();
        assert_eq!((expired.code, expired.reason), (410, Reason::Expired));
        assert_eq!(expired.message, "The resourceVersion for the provided list is too old.");
    }
    for options in [at(Some(VersionMatch::NotOlderThan), 0), at(None, 0)] {
        assert_eq!(world.list("configmaps", options).await.unwrap().items.len(), 5);
    }
}

#[tokio::test]
async fn any_state_is_shown_whole() {
    let world = World::new().await;
    five(&world).await;
    // From here on the cache has what was created.
    world.list("configmaps", ListOptions::default()).await.unwrap();
    let any = ListOptions { resource_version: "0".into(), limit: 2, ..ListOptions::default() };
    let list = world.list("configmaps", any).await.unwrap();
    assert_eq!((list.items.len(), &*list.continue_token), (5, ""), "a limit means nothing then");
    let token = world.list("configmaps", ListOptions { limit: 2, ..ListOptions::default() }).await.unwrap();
    let both = ListOptions {
        resource_version: "5".into(),
        continue_token: token.continue_token,
        limit: 2,
        ..ListOptions::default()
    };
    let refused = world.list("configmaps", both).await.unwrap_err();
    assert_eq!(
        (refused.code, &*refused.message),
        (400, "specifying resource version is not allowed when using continue")
    );
}

#[tokio::test(start_paused = true)]
async fn revisions_are_kept_to() {
    let world = World::new().await;
    let created = five(&world).await;
    let at = |revision: u64, version_match| ListOptions {
        resource_version: revision.to_string(),
        version_match,
        ..ListOptions::default()
    };
    let exact = at(version(&created[1]), Some(VersionMatch::Exact));
    let list = world.list("configmaps", exact).await.unwrap();
    assert_eq!((names(&list), list.revision), (vec!["i0".into(), "i1".into()], version(&created[1])));
    let newer = at(version(&created[1]), Some(VersionMatch::NotOlderThan));
    assert_eq!(world.list("configmaps", newer).await.unwrap().items.len(), 5);
    let far = world.list("configmaps", at(999_999, None)).await.unwrap_err();
    let current = version(&created[4]);
    assert_eq!(far.message, format!("Timeout: Too large resource version: 999999, current: {current}"));
    let details = far.details.unwrap();
    assert_eq!((far.code, far.reason, details.retry_after_seconds), (504, Reason::Timeout, 1));
    let cause = &details.causes[0];
    assert_eq!((&*cause.reason, &*cause.message), ("ResourceVersionTooLarge", "Too large resource version"));
    let bad = ListOptions { resource_version: "abc".into(), ..ListOptions::default() };
    assert_eq!(
        world.list("configmaps", bad).await.unwrap_err().message,
        "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"
    );
    let def = world.def("configmaps");
    let options = GetOptions { resource_version: "999999".into() };
    assert_eq!(world.registry.get(&def, NS, "i0", &options).await.unwrap_err().code, 504);
}

#[tokio::test]
async fn a_list_is_written_as_json() {
    let world = World::new().await;
    five(&world).await;
    let options = ListOptions { limit: 2, ..ListOptions::default() };
    let list = world.list("configmaps", options).await.unwrap();
    let mut out = bytes::BytesMut::new();
    list.write_json(&mut out);
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&value["kind"], &value["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(value["metadata"]["remainingItemCount"], 3);
    assert_eq!(value["metadata"]["resourceVersion"], list.revision.to_string());
    let mut first = list.items[0].to_value();
    first.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
    assert_eq!(value["items"][0], first, "items of built-in kinds do not say their kind");
}

#[tokio::test]
async fn a_new_registry_finds_what_was_stored() {
    let world = World::new().await;
    let created = five(&world).await;
    let again = World::over(world.store.clone(), Options::default()).await;
    let list = again.list("configmaps", ListOptions::default()).await.unwrap();
    assert_eq!(list.items.iter().map(|o| o.to_value()).collect::<Vec<_>>(), created);
    let options = ListOptions { labels: labels("app=odd"), ..ListOptions::default() };
    assert_eq!(names(&again.list("configmaps", options).await.unwrap()), ["i1", "i3"]);
    // Both see what either writes.
    again.create("configmaps", config_map("new", "v")).await.unwrap();
    assert!(world.get("configmaps", "new").await.is_ok());
}
