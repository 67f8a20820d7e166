//! The tests that every backend of the store passes.
//!
//! [`run_all`] gets a function that makes an empty store and runs every check on one of its own. Checks wait for
//! events, never for time; [`PATIENCE`] only ends a test whose store never answers.

pub mod etcd;
pub mod history;
mod leases;
mod reads;
mod transactions;
mod watches;

use bytes::Bytes;
use futures::StreamExt;
use pintle_store::{
    Compare, Event, KeyRange, KeyValue, Op, RangeRequest, RangeResult, Revision, Store, StoreError, Txn, WatchStream,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the whole contract; each check on a new store.
pub async fn run_all<F, Made>(make: F)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Store>>,
{
    transactions::run(&make).await;
    reads::run(&make).await;
    watches::run(&make).await;
    leases::run(&make).await;
}

/// Puts a key and answers the revision.
pub async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    try_put(store, key, value).await.expect("put")
}

pub async fn try_put(store: &dyn Store, key: &str, value: &str) -> Result<Revision, StoreError> {
    let then = vec![op_put(key, value)];
    Ok(store.txn(Txn { then, ..Txn::default() }).await?.revision)
}

/// Deletes a key and answers the revision.
pub async fn delete(store: &dyn Store, key: &str) -> Revision {
    let then = vec![Op::Delete(KeyRange::key(key.to_owned()))];
    store.txn(Txn { then, ..Txn::default() }).await.expect("delete").revision
}

pub fn op_put(key: &str, value: &str) -> Op {
    Op::Put { key: Bytes::from(key.to_owned()), value: Bytes::from(value.to_owned()), lease: 0 }
}

pub fn unchanged_since(key: &str, revision: Revision) -> Compare {
    Compare::ModRevision(Bytes::from(key.to_owned()), revision)
}

/// Everything below a prefix, at a revision or now.
pub async fn read(store: &dyn Store, prefix: &str, at: Option<Revision>) -> Result<RangeResult, StoreError> {
    store.range(RangeRequest { range: KeyRange::prefix(prefix.to_owned()), at, limit: 0 }).await
}

/// `key=value` of everything below a prefix.
pub async fn shown(store: &dyn Store, prefix: &str, at: Option<Revision>) -> Vec<String> {
    read(store, prefix, at).await.expect("read").kvs.iter().map(show).collect()
}

pub fn show(kv: &KeyValue) -> String {
    format!("{}={}", String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value))
}

fn show_event(revision: Revision, event: &Event) -> String {
    let old = |prev: &Option<KeyValue>| prev.as_ref().map_or(String::new(), |p| format!(" was {}", show(p)));
    match event {
        Event::Put { kv, prev } => format!("{revision} put {}{}", show(kv), old(prev)),
        Event::Delete { kv, prev } => format!("{revision} delete {}{}", String::from_utf8_lossy(&kv.key), old(prev)),
    }
}

/// The next `count` events of a watch, in words.
pub async fn events(watch: &mut WatchStream, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = next(watch).await.expect("a batch");
        seen.extend(batch.events.iter().map(|event| show_event(batch.revision, event)));
    }
    seen
}

/// The next batch of a watch.
pub async fn next(watch: &mut WatchStream) -> Result<pintle_store::WatchBatch, StoreError> {
    let batch = tokio::time::timeout(PATIENCE, watch.next()).await;
    batch.expect("the watch is silent").expect("the watch has ended")
}
