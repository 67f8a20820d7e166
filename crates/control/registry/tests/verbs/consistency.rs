//! The cache tells the truth: readers see their own writes, watchers end where lists do, lost watches are made good.

use crate::world::*;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use pintle_registry::{EventKind, ListOptions, Options, WatchOptions};
use pintle_store::{
    EmbeddedStore, KeyRange, LeaseId, RangeRequest, RangeResult, Revision, Store, StoreError, Txn, TxnResult,
    WatchStream,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_their_own_writes() {
    let world = Arc::new(World::new().await);
    let clients = (0..8).map(|client| {
        let world = world.clone();
        tokio::spawn(async move {
            for i in 0..50 {
                let name = format!("c{client}-{i}");
                let created = world.create("configmaps", config_map(&name, "v")).await.expect("create");
                let list = world.list("configmaps", ListOptions::default()).await.expect("list");
                assert!(names(&list).contains(&name) && list.revision >= version(&created));
                world.delete("configmaps", &name, json!({})).await.expect("delete");
                assert_eq!(world.get("configmaps", &name).await.expect_err("deleted").code, 404);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("client");
    }
}

/// Some changes of a few objects, whose label comes and goes.
async fn change_at_random(world: &World, random: &mut StdRng) {
    let name = format!("o{}", random.random_range(0..6));
    let label = ["web", "db"][random.random_range(0..2)];
    match random.random_range(0..4) {
        0 => drop(world.delete("configmaps", &name, json!({})).await),
        1 => drop(world.create("configmaps", labelled(&name, label)).await),
        2 => drop(world.merge("configmaps", &name, "", json!({"metadata": {"labels": {"app": label}}})).await),
        _ => {
            let value = random.random_range(0..100).to_string();
            drop(world.merge("configmaps", &name, "", json!({"data": {"k": value}})).await);
        }
    }
}

#[tokio::test]
async fn a_watcher_ends_where_a_list_does() {
    for seed in 0..10 {
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::new().await;
        let selected = || ListOptions { labels: labels("app=web"), ..ListOptions::default() };
        for _ in 0..20 {
            change_at_random(&world, &mut random).await;
        }
        let begin = world.list("configmaps", selected()).await.unwrap();
        let options = WatchOptions {
            labels: labels("app=web"),
            resource_version: begin.revision.to_string(),
            ..WatchOptions::default()
        };
        let mut watch = world.watch("configmaps", options).await.unwrap();
        for _ in 0..60 {
            change_at_random(&world, &mut random).await;
        }
        let end = world.list("configmaps", selected()).await.unwrap();
        let mut known: BTreeMap<String, serde_json::Value> =
            begin.items.iter().map(|o| o.to_value()).map(|o| (name(&o), o)).collect();
        while let Some(Some(event)) = watch.next().now_or_never() {
            let object = event.object.to_value();
            let before = match event.kind {
                EventKind::Deleted => known.remove(&name(&object)),
                _ => known.insert(name(&object), object),
            };
            assert_eq!(before.is_none(), event.kind == EventKind::Added, "seed {seed}: {event:?}");
        }
        let listed: Vec<_> = end.items.iter().map(|o| o.to_value()).collect();
        assert_eq!(known.into_values().collect::<Vec<_>>(), listed, "seed {seed}");
    }
}

fn name(object: &serde_json::Value) -> String {
    object["metadata"]["name"].as_str().expect("name").to_owned()
}

/// A store whose watches break when told to; until it is mended, new ones begin to break too.
struct Fragile {
    store: Arc<EmbeddedStore>,
    broken: watch::Sender<bool>,
}

#[async_trait]
impl Store for Fragile {
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store.revision().await
    }
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        self.store.range(request).await
    }
    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        self.store.txn(txn).await
    }
    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError> {
        let mut broken = self.broken.subscribe();
        let breaks = async move {
            // The sender lives as long as the store.
            let _ = broken.wait_for(|broken| *broken).await;
        };
        let lost = StoreError::Compacted { asked: from, oldest: from + 1 };
        let batches = self.store.watch(range, from).await?.take_until(breaks);
        Ok(Box::pin(batches.chain(futures::stream::iter([Err(lost)]))))
    }
    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
    async fn grant_lease(&self, ttl_seconds: u64) -> Result<LeaseId, StoreError> {
        self.store.grant_lease(ttl_seconds).await
    }
    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.renew_lease(lease).await
    }
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke_lease(lease).await
    }
}

#[tokio::test]
async fn a_lost_watch_is_made_good() {
    let broken = watch::Sender::new(false);
    let whole = Arc::new(EmbeddedStore::in_memory().unwrap());
    let store = Arc::new(Fragile { store: whole.clone(), broken });
    let world = World::over(store.clone(), Options::default()).await;
    for name in ["kept", "changed", "deleted"] {
        world.create("configmaps", config_map(name, "1")).await.unwrap();
    }
    let mut watch = world.watch("configmaps", WatchOptions::default()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(watch.next().await.unwrap().kind, EventKind::Added);
    }
    store.broken.send_replace(true);
    // Another server writes while this one's watch is broken.
    let other = World::over(whole, Options::default()).await;
    other.merge("configmaps", "changed", "", json!({"data": {"k": "2"}})).await.unwrap();
    other.delete("configmaps", "deleted", json!({})).await.unwrap();
    other.create("configmaps", config_map("new", "1")).await.unwrap();
    store.broken.send_replace(false);
    let list = world.list("configmaps", ListOptions::default()).await.unwrap();
    assert_eq!(names(&list), ["changed", "kept", "new"]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = watch.next().await.unwrap();
        seen.push(format!("{} {}", event.kind.as_str(), name(&event.object.to_value())));
    }
    seen.sort();
    assert_eq!(seen, ["ADDED new", "DELETED deleted", "MODIFIED changed"]);
}
