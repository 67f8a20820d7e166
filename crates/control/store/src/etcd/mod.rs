//! The etcd backend: the trait spoken to a cluster of etcd, version 3, over gRPC.
//!
//! ```text
//! range, txn, leases ─▶ endpoints ─▶ a connection per member (in turn, around those that fail)
//! watch ─▶ a connection of its own, on another member when it breaks, from the last revision on
//! revision ─▶ one question at a time, shared by all who asked before it was sent
//! ```
//!
//! Reads are asked again of other members; a write only when it was surely not sent, else the answer is
//! [`StoreError::Unavailable`]. Nothing is kept in memory but connections.

mod compactor;
mod endpoints;
mod grpc;
mod messages;
mod watch;

pub use endpoints::BadEndpoint;

use crate::{KeyRange, LeaseId, RangeRequest, RangeResult, Revision, Store, StoreError, Txn, TxnResult, WatchStream};
use async_trait::async_trait;
use bytes::Bytes;
use endpoints::{Address, Endpoints, Kind};
use grpc::CallError;
use messages::Names;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch as signal};
use watch::{Common, Watcher};

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Ends the key that is written to learn how far a watch is, where members cannot tell.
const PROGRESS: &[u8] = b"pintle.progress";
const COMPACTED: &str = "required revision has been compacted";
/// What callers' keys begin with.
const ROOT: &str = "/registry";

/// Which cluster, and how it is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// `https://10.0.0.1:2379` and the like, one for each member.
    pub endpoints: Vec<String>,
    /// Trust and client certificate; needed for `https`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// What keys begin with in etcd instead of `/registry`.
    pub prefix: String,
    /// How often the past is compacted, up to where it was an interval ago; nothing leaves that to others.
    pub compact_every: Option<Duration>,
    /// How long what can be tried again is tried again: elections take a second or two.
    pub patience: Duration,
}

impl Options {
    pub fn new(endpoints: impl IntoIterator<Item = String>) -> Self {
        let compact_every = Some(Duration::from_secs(300));
        let patience = Duration::from_secs(15);
        Self { endpoints: endpoints.into_iter().collect(), tls: None, prefix: ROOT.into(), compact_every, patience }
    }
}

/// A store in etcd. Dropping it ends all its watches; what it wrote stays.
pub struct EtcdStore {
    common: Common,
    ask: signal::Sender<u64>,
    _open: signal::Sender<()>,
    compactor: Option<tokio::task::AbortHandle>,
    newest: Mutex<(u64, Revision)>,
    ticket: AtomicU64,
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        if let Some(compactor) = &self.compactor {
            compactor.abort();
        }
    }
}

impl EtcdStore {
    /// Reaches the cluster, or says why it cannot. Call within a tokio runtime.
    pub async fn open(options: Options) -> Result<Self, StoreError> {
        let addresses = options.endpoints.iter().map(|endpoint| Address::parse(endpoint, options.tls.as_ref()));
        let addresses = addresses.collect::<Result<Vec<_>, _>>().map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let endpoints = Arc::new(Endpoints::new(addresses, options.patience));
        watch::newest(&endpoints).await.map_err(store_error)?;
        let every = options.compact_every;
        let compactor = every.map(|every| tokio::spawn(compactor::run(endpoints.clone(), every)).abort_handle());
        let ((ask, asked), (_open, open)) = (signal::channel(0), signal::channel(()));
        let names = Names::new(ROOT, options.prefix.trim_end_matches('/'));
        let common = Common { endpoints, names, asked, open };
        Ok(Self { common, ask, _open, compactor, newest: Mutex::default(), ticket: AtomicU64::new(1) })
    }

    async fn call(&self, kind: Kind, method: &str, message: &[u8]) -> Result<Bytes, CallError> {
        self.common.endpoints.call(kind, method, message).await
    }

    /// An error of a read or a compaction at a revision, with the revisions that etcd does not tell.
    async fn at_revision(&self, error: CallError, asked: Revision) -> StoreError {
        let CallError::Status { message, .. } = &error else { return store_error(error) };
        if message.contains(COMPACTED) {
            let oldest = watch::oldest(&self.common).await.unwrap_or(asked + 1);
            return StoreError::Compacted { asked, oldest };
        }
        if message.contains("required revision is a future revision") {
            let newest = self.revision().await.unwrap_or(asked.saturating_sub(1));
            return StoreError::FutureRevision { asked, newest };
        }
        store_error(error)
    }
}

/// gRPC's codes.
const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;

/// etcd's failures in the words of the trait.
fn store_error(error: CallError) -> StoreError {
    let CallError::Status { code, message } = error else { return StoreError::Unavailable(error.to_string()) };
    match code {
        INVALID_ARGUMENT => StoreError::Invalid(message),
        RESOURCE_EXHAUSTED => StoreError::Unwritable(message),
        _ => StoreError::Unavailable(message),
    }
}

fn lease_error(error: CallError, lease: LeaseId) -> StoreError {
    match &error {
        CallError::Status { message, .. } if message.contains("requested lease not found") => {
            StoreError::NoSuchLease(lease)
        }
        _ => store_error(error),
    }
}

fn understood<T>(read: Result<T, pintle_protobuf::wire::WireError>) -> Result<T, StoreError> {
    read.map_err(|e| StoreError::Unavailable(e.to_string()))
}

#[async_trait]
impl Store for EtcdStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        let arrived = self.ticket.fetch_add(1, Ordering::SeqCst);
        let mut newest = self.newest.lock().await;
        if newest.0 > arrived {
            // It was asked after this call began, so it knows of all that was written before.
            return Ok(newest.1);
        }
        let began = self.ticket.fetch_add(1, Ordering::SeqCst);
        let revision = watch::newest(&self.common.endpoints).await.map_err(store_error)?;
        *newest = (began, revision);
        Ok(revision)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        let message = messages::range(&self.common.names, &request);
        match self.call(Kind::Read, RANGE, &message).await {
            Ok(answer) => understood(messages::read_range(&self.common.names, &answer)),
            Err(error) => Err(self.at_revision(error, request.at.unwrap_or_default()).await),
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        let reads = txn.then.iter().chain(&txn.otherwise).all(|op| matches!(op, crate::Op::Get(_)));
        let kind = if reads { Kind::Read } else { Kind::Write };
        let lease = txn.then.iter().chain(&txn.otherwise).find_map(|op| match op {
            crate::Op::Put { lease, .. } if *lease != 0 => Some(*lease),
            _ => None,
        });
        let message = messages::txn(&self.common.names, &txn);
        let answer = self.call(kind, TXN, &message).await;
        let answer = answer.map_err(|error| lease_error(error, lease.unwrap_or_default()))?;
        understood(messages::read_txn(&self.common.names, &answer))
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError> {
        // Not a member's own idea of the next change: it may be behind.
        let next = if from == 0 { self.revision().await? + 1 } else { from };
        Watcher::new(self.common.clone(), range, next).start().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let message = messages::compact(revision);
        match self.call(Kind::Write, COMPACT, &message).await {
            Ok(_) => Ok(()),
            Err(CallError::Status { message, .. }) if message.contains(COMPACTED) => Ok(()),
            Err(error) => Err(self.at_revision(error, revision).await),
        }
    }

    async fn grant_lease(&self, ttl_seconds: u64) -> Result<LeaseId, StoreError> {
        // One that is granted twice ends by itself.
        let answer = self.call(Kind::Read, GRANT, &messages::grant(ttl_seconds)).await.map_err(store_error)?;
        understood(messages::read_lease(&answer))
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let answer = self.call(Kind::Read, KEEP_ALIVE, &messages::lease(lease)).await;
        let answer = answer.map_err(|e| lease_error(e, lease))?;
        match understood(messages::read_ttl(&answer))? {
            0 => Err(StoreError::NoSuchLease(lease)),
            _ => Ok(()),
        }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let answer = self.call(Kind::Write, REVOKE, &messages::lease(lease)).await;
        answer.map(drop).map_err(|e| lease_error(e, lease))
    }

    fn request_progress(&self) {
        self.ask.send_modify(|asked| *asked += 1);
    }

    fn is_shared(&self) -> bool {
        true
    }
}
