//! Encrypts chosen values on their way to any store, and decrypts them on their way back: the disk never has them plain.
//!
//! The form of the values is upstream's, so that an etcd can be shared with its API server. The first key of a key's
//! providers writes, all of them read; what was written by another than the first is stale and is written again with
//! the next update, even one that changes nothing ([`Store::is_stale`]).

mod config;
mod provider;
mod reload;

pub use config::{ConfigError, Configuration};
pub use provider::Provider;
pub use reload::PERIOD;

use crate::{
    Event, KeyRange, KeyValue, LeaseId, Op, RangeRequest, RangeResult, Revision, Store, StoreError, Txn, TxnResult,
    WatchStream,
};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use std::collections::HashSet;
use std::sync::Arc;

/// All values that are encrypted begin with this.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// The providers of the keys below a prefix, the one that writes first.
#[derive(Debug)]
pub struct Rule {
    /// Ends with a slash: `/registry/secrets/`.
    pub prefix: String,
    pub providers: Arc<Vec<Provider>>,
}

/// A store whose values are encrypted by rules. Keys, revisions and leases are as they are.
pub struct SealedStore {
    inner: Arc<dyn Store>,
    seals: Arc<Seals>,
}

impl std::fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedStore").field("rules", &*self.seals.rules.load()).finish_non_exhaustive()
    }
}

impl SealedStore {
    /// The longest prefix that a key begins with decides; keys without a rule are stored as they are.
    pub fn new(inner: Arc<dyn Store>, rules: Vec<Rule>) -> Self {
        let rules = ArcSwap::from_pointee(Rules::new(rules));
        Self { inner, seals: Arc::new(Seals { rules, stale: RwLock::default() }) }
    }
}

/// The rules, the longest prefix first.
#[derive(Debug)]
struct Rules(Vec<Rule>);

impl Rules {
    fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        Self(rules)
    }

    fn providers(&self, key: &[u8]) -> Option<&Arc<Vec<Provider>>> {
        self.0.iter().find(|rule| key.starts_with(rule.prefix.as_bytes())).map(|rule| &rule.providers)
    }

    /// The provider that wrote a value, and whether another one writes now; nothing where there is no rule.
    fn writer(&self, kv: &KeyValue) -> Result<Option<(&Provider, bool)>, StoreError> {
        let Some(providers) = self.providers(&kv.key) else { return Ok(None) };
        let Some((at, provider)) = providers.iter().enumerate().find(|(_, p)| p.wrote(&kv.value)) else {
            return Err(unreadable(&kv.key));
        };
        Ok(Some((provider, at > 0)))
    }
}

fn unreadable(key: &[u8]) -> StoreError {
    let key = String::from_utf8_lossy(key);
    StoreError::Corrupt(format!("no key of the configuration reads the value of {key}"))
}

#[derive(Debug)]
struct Seals {
    /// Replaced when the configuration changes.
    rules: ArcSwap<Rules>,
    /// Keys whose values were not written by the first of their providers.
    stale: RwLock<HashSet<Bytes>>,
}

impl Seals {
    fn close(&self, key: &[u8], value: Bytes) -> Result<Bytes, StoreError> {
        match self.rules.load().providers(key).and_then(|providers| providers.first()) {
            None => Ok(value),
            Some(provider) => provider.close(key, value),
        }
    }

    fn open(&self, mut kv: KeyValue) -> Result<KeyValue, StoreError> {
        let rules = self.rules.load();
        let Some((provider, stale)) = rules.writer(&kv)? else { return Ok(kv) };
        self.mark(&kv.key, stale);
        kv.value = provider.open(&kv.key, kv.value)?;
        Ok(kv)
    }

    fn mark(&self, key: &Bytes, stale: bool) {
        if stale {
            self.stale.write().insert(key.clone());
        } else if self.stale.read().contains(key) {
            self.stale.write().remove(key);
        }
    }

    fn open_all(&self, kvs: Vec<KeyValue>) -> Result<Vec<KeyValue>, StoreError> {
        kvs.into_iter().map(|kv| self.open(kv)).collect()
    }

    fn open_event(&self, event: Event) -> Result<Event, StoreError> {
        // The older value first: whether a key is stale is the newer one's matter.
        Ok(match event {
            Event::Put { kv, prev } => {
                let prev = prev.map(|prev| self.open(prev)).transpose()?;
                Event::Put { kv: self.open(kv)?, prev }
            }
            Event::Delete { kv, prev } => {
                let prev = prev.map(|prev| self.open(prev)).transpose()?;
                self.mark(&kv.key, false);
                Event::Delete { kv, prev }
            }
        })
    }

    fn close_ops(&self, ops: Vec<Op>) -> Result<Vec<Op>, StoreError> {
        let close = |op| match op {
            Op::Put { key, value, lease } => Ok(Op::Put { value: self.close(&key, value)?, key, lease }),
            other => Ok(other),
        };
        ops.into_iter().map(close).collect()
    }
}

#[async_trait]
impl Store for SealedStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision().await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        let mut result = self.inner.range(request).await?;
        result.kvs = self.seals.open_all(std::mem::take(&mut result.kvs))?;
        Ok(result)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        let then = self.seals.close_ops(txn.then)?;
        let otherwise = self.seals.close_ops(txn.otherwise)?;
        let mut result = self.inner.txn(Txn { compare: txn.compare, then, otherwise }).await?;
        let opened: Result<Vec<_>, _> =
            std::mem::take(&mut result.results).into_iter().map(|kvs| self.seals.open_all(kvs)).collect();
        result.results = opened?;
        Ok(result)
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError> {
        let seals = self.seals.clone();
        let batches = self.inner.watch(range, from).await?;
        Ok(Box::pin(batches.map(move |batch| {
            let mut batch = batch?;
            let events: Result<_, _> = batch.events.into_iter().map(|event| seals.open_event(event)).collect();
            batch.events = events?;
            Ok(batch)
        })))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn grant_lease(&self, ttl_seconds: u64) -> Result<LeaseId, StoreError> {
        self.inner.grant_lease(ttl_seconds).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke_lease(lease).await
    }

    fn is_stale(&self, key: &[u8]) -> bool {
        self.seals.stale.read().contains(key)
    }

    fn request_progress(&self) {
        self.inner.request_progress();
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }
}

#[cfg(test)]
mod tests;
