//! Keeps revisioned keys durably: the trait, the embedded backend, and etcd.
//!
//! The model is etcd's: one revision counts the changes of the whole store, a key has the revision of its creation
//! and of its last change, reads can be made at a past revision until it is compacted, and a watch replays from a
//! revision. Knows nothing of Kubernetes: keys and values are bytes.

pub mod embedded;
pub mod etcd;
pub mod sealed;

pub use embedded::EmbeddedStore;
pub use etcd::EtcdStore;
pub use sealed::SealedStore;

use async_trait::async_trait;
use bytes::Bytes;
use std::pin::Pin;

/// The number of a change. The empty store is at revision 1.
pub type Revision = u64;

/// A lease's number; 0 is none.
pub type LeaseId = i64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Changes since creation, the creation included.
    pub version: u64,
    pub lease: LeaseId,
}

/// Keys from `start` up to, not including, `end`; without an end, `start` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Option<Bytes>,
}

impl KeyRange {
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: None }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while end.pop_if(|last| *last == 0xff).is_some() {}
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start, end: Some(end.into()) }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            None => key == self.start,
            // An empty end is the end of the key space, as etcd's `\0` is.
            Some(end) => key >= &self.start[..] && (end.is_empty() || key < &end[..]),
        }
    }
}

/// What a read asks for.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    pub range: KeyRange,
    /// The revision to read at; nothing is the newest.
    pub at: Option<Revision>,
    /// At most so many keys; 0 is no limit.
    pub limit: usize,
}

#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    /// The store's revision when it answered (not the revision read at).
    pub revision: Revision,
    /// In the order of the keys.
    pub kvs: Vec<KeyValue>,
    /// How many keys the range holds, beyond the limit too.
    pub count: usize,
}

/// A condition of a transaction.
#[derive(Clone, Debug)]
pub enum Compare {
    /// The key's last change is that revision; 0 is an absent key.
    ModRevision(Bytes, Revision),
    /// The key was created at that revision; 0 is an absent key.
    CreateRevision(Bytes, Revision),
}

#[derive(Clone, Debug)]
pub enum Op {
    Put { key: Bytes, value: Bytes, lease: LeaseId },
    Delete(KeyRange),
    Get(KeyRange),
}

/// If all of `compare` hold, `then` is done, else `otherwise`; in one step and under one revision. Operations see what
/// those before them did; no key may be changed twice.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub then: Vec<Op>,
    pub otherwise: Vec<Op>,
}

#[derive(Clone, Debug, Default)]
pub struct TxnResult {
    pub succeeded: bool,
    /// The store's revision after the transaction.
    pub revision: Revision,
    /// For each operation done, the keys it read or deleted.
    pub results: Vec<Vec<KeyValue>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put {
        kv: KeyValue,
        prev: Option<KeyValue>,
    },
    /// `kv` has the key and, as `mod_revision`, the revision of the deletion; `prev` is what was deleted.
    Delete {
        kv: KeyValue,
        prev: Option<KeyValue>,
    },
}

/// All changes of one revision that fall into a watched range; or, without events, the word that nothing up to
/// this revision is outstanding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// Batches in the order of their revisions, none left out. Ends with an error when the watcher fell behind the
/// compacted revision, or the store closed.
pub type WatchStream = Pin<Box<dyn futures::Stream<Item = Result<WatchBatch, StoreError>> + Send>>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("revision {asked} was compacted away (oldest kept: {oldest})")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("revision {asked} is in the future (newest: {newest})")]
    FutureRevision { asked: Revision, newest: Revision },
    /// A transaction that no store can do: nothing was changed.
    #[error("the transaction is not valid: {0}")]
    Invalid(String),
    #[error("lease {0} does not exist")]
    NoSuchLease(LeaseId),
    /// The disk is full, or not to be written to: nothing was changed.
    #[error("the store cannot write: {0}")]
    Unwritable(String),
    /// Whether the change happened is not known.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    #[error("the store's files are damaged: {0}")]
    Corrupt(String),
    #[error("the store is closed")]
    Closed,
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision.
    async fn revision(&self) -> Result<Revision, StoreError>;
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError>;
    /// Durable when it returns.
    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError>;
    /// Changes from revision `from` on, that one included; 0 is from the next change on. A revision that is still to
    /// come is waited for. [`StoreError::Compacted`] when changes of `from` are no longer kept comes at once or as the
    /// stream's first item.
    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError>;
    /// Forgets what was overwritten or deleted before `revision`: reads at it and watches from it still work, those
    /// of older ones fail. An older revision than was compacted already changes nothing.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
    /// A lease that ends after `ttl_seconds` unless renewed; its keys are deleted with it.
    async fn grant_lease(&self, ttl_seconds: u64) -> Result<LeaseId, StoreError>;
    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError>;
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError>;
    /// Whether the value of a key is to be written again although it does not change: it is kept in an old form.
    fn is_stale(&self, _key: &[u8]) -> bool {
        false
    }

    /// Asks that all watches say soon how far they are, with a batch without events if there is nothing else. A store
    /// whose watches always say it does nothing.
    fn request_progress(&self) {}

    /// Whether others may write what is stored here, too.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether reads and watches hand out the very bytes that were put, not copies.
    fn keeps_values(&self) -> bool {
        false
    }
}
