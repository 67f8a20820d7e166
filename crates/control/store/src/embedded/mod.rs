//! The embedded backend: everything alive in memory, every change in one SQLite file.
//!
//! ```text
//! txn ─▶ writer thread ─▶ state' = state + transactions ─▶ one SQLite commit ─▶ publish ─▶ answer
//!                                                                               │
//! range ◀── newest state (a persistent map, read without locks) ◀───────────────┤
//! watch ◀── history in memory, older changes from the file ◀────────────────────┘
//! ```
//!
//! The writer owns the file; readers of the past open it beside it. A commit that fails leaves state and file as they
//! were. Leases that end are revoked by a task.

mod disk;
mod follow;
mod history;
mod lease;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use crate::{KeyRange, LeaseId, RangeRequest, RangeResult, Revision, Store, StoreError, Txn, TxnResult, WatchStream};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use disk::{Archive, Disk, Loaded};
use follow::Follower;
use history::{History, limited};
use lease::Deadlines;
use parking_lot::{Mutex, RwLock};
use state::State;
use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use writer::{Command, Published, Reply, Retention, Writer};

/// How the embedded store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file's greatest size; at it, writes fail with [`StoreError::Unwritable`].
    pub max_bytes: u64,
    /// Recent changes kept in memory, in bytes.
    pub history_bytes: usize,
    /// How many revisions of the past can be read, at least until they are `keep_time` old.
    pub keep_revisions: u64,
    pub keep_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 30,
            history_bytes: 2 << 20,
            keep_revisions: 100_000,
            keep_time: Duration::from_secs(300),
        }
    }
}

/// Who does the writing.
enum Engine {
    /// Nothing once the store is closed.
    Thread(Mutex<Option<mpsc::Sender<Command>>>),
    /// Without a file: in the caller's thread, so that tests with paused time are not overtaken by their timers.
    Inline(Box<Mutex<Writer>>),
}

struct Inner {
    published: Arc<Published>,
    progress: watch::Receiver<Revision>,
    archive: Option<Archive>,
    deadlines: Arc<Deadlines>,
    engine: Engine,
}

/// The embedded store. Dropping it finishes what was asked for, ends all watches, and closes the file.
pub struct EmbeddedStore {
    /// Always there until dropped.
    inner: Option<Arc<Inner>>,
    thread: Option<std::thread::JoinHandle<()>>,
    expiry: tokio::task::AbortHandle,
    _lock: Option<File>,
}

impl EmbeddedStore {
    /// Opens the store in a file, or makes it; `<path>.lock` keeps others out. Reads all that is alive before it
    /// returns. Call within a tokio runtime.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let lock = lock(path)?;
        // SQLite would make it readable by all; its log gets the same mode.
        private_file(path).map_err(|e| StoreError::Unwritable(format!("{}: {e}", path.display())))?;
        let disk = Disk::open(path, options.max_bytes)?;
        let Loaded { state, garbage } = disk.load()?;
        let leases: Vec<_> = state.leases.iter().map(|(id, lease)| (*id, lease.ttl_seconds)).collect();
        let (writer, published, progress) = parts(state, Some((disk, garbage)), &options);
        let (commands, queue) = mpsc::channel();
        let spawned = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(&queue));
        let thread = spawned.map_err(|e| StoreError::Unavailable(format!("starting the writer: {e}")))?;
        let archive = Some(Archive(path.to_owned()));
        let engine = Engine::Thread(Mutex::new(Some(commands)));
        let inner = Arc::new(Inner { published, progress, archive, deadlines: Arc::default(), engine });
        for (lease, ttl_seconds) in leases {
            inner.deadlines.start(lease, ttl_seconds);
        }
        let expiry = spawn_expiry(&inner)?;
        Ok(Self { inner: Some(inner), thread: Some(thread), expiry, _lock: Some(lock) })
    }

    /// A store without a file, for tests: nothing survives it. Call within a tokio runtime.
    pub fn in_memory() -> Result<Self, StoreError> {
        let options = Options { history_bytes: usize::MAX, ..Options::default() };
        let (writer, published, progress) = parts(State::default(), None, &options);
        let engine = Engine::Inline(Box::new(Mutex::new(writer)));
        let inner = Arc::new(Inner { published, progress, archive: None, deadlines: Arc::default(), engine });
        let expiry = spawn_expiry(&inner)?;
        Ok(Self { inner: Some(inner), thread: None, expiry, _lock: None })
    }

    /// How often since its opening the store waited for the disk before it answered: once for all changes that were
    /// asked for while the last ones were written.
    pub fn syncs(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.published.syncs.load(Ordering::Relaxed))
    }

    fn inner(&self) -> Result<&Arc<Inner>, StoreError> {
        self.inner.as_ref().ok_or(StoreError::Closed)
    }
}

fn parts(
    state: State,
    disk: Option<(Disk, VecDeque<disk::Garbage>)>,
    options: &Options,
) -> (Writer, Arc<Published>, watch::Receiver<Revision>) {
    let history = RwLock::new(History::after(state.revision, options.history_bytes));
    let syncs = AtomicU64::new(0);
    let published = Arc::new(Published { state: ArcSwap::from_pointee(state), history, syncs });
    let retention = Retention { revisions: options.keep_revisions, time: options.keep_time };
    let (disk, garbage) = disk.unzip();
    let (writer, progress) = Writer::new(published.clone(), disk, garbage.unwrap_or_default(), retention);
    (writer, published, progress)
}

/// Opens a file, or makes it so that only its owner can read it: what is stored is secret.
fn private_file(path: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let cannot = |why: &dyn std::fmt::Display| StoreError::Unwritable(format!("{}: {why}", name.display()));
    let file = private_file(Path::new(&name)).map_err(|e| cannot(&e))?;
    let start = std::time::Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(cannot(&"another process has the store open; stop it first"));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(&error)),
        }
    }
}

/// How long a predecessor that was killed may take to let go of its files.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Revokes leases as they end.
fn spawn_expiry(inner: &Arc<Inner>) -> Result<tokio::task::AbortHandle, StoreError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|e| StoreError::Unavailable(e.to_string()))?;
    let (weak, deadlines): (Weak<Inner>, _) = (Arc::downgrade(inner), inner.deadlines.clone());
    let task = async move {
        loop {
            let lease = deadlines.ended().await;
            let Some(inner) = weak.upgrade() else { return };
            match inner.revoke(lease).await {
                Ok(()) | Err(StoreError::NoSuchLease(_)) => deadlines.forget(lease),
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, lease, "cannot end a lease");
                    deadlines.retry(lease);
                }
            }
        }
    };
    Ok(runtime.spawn(task).abort_handle())
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.expiry.abort();
        if let Some(Engine::Thread(queue)) = self.inner.take().as_deref().map(|inner| &inner.engine) {
            queue.lock().take();
        }
        if let Some(thread) = self.thread.take() {
            // The writer ends when the sender is gone; a panic of its was told where it happened.
            let _ = thread.join();
        }
    }
}

impl Inner {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let command = command(reply);
        match &self.engine {
            Engine::Thread(queue) => {
                let queue = queue.lock();
                let queue = queue.as_ref().ok_or(StoreError::Closed)?;
                queue.send(command).map_err(|_| StoreError::Closed)?;
            }
            Engine::Inline(writer) => {
                let mut writer = writer.lock();
                writer.process(vec![command]);
                writer.maintain(1);
            }
        }
        answer.await.map_err(|_| StoreError::Unavailable("the writer stopped".into()))?
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Command::Revoke(lease, reply)).await
    }

    async fn read_past(&self, request: &RangeRequest, at: Revision) -> Result<RangeResult, StoreError> {
        let state = self.published.state.load_full();
        self.check_readable(at)?;
        let recent = self.published.history.read().read_at(&state, &request.range, at, request.limit);
        if let Some(result) = recent {
            return Ok(result);
        }
        let Some(archive) = self.archive.clone() else {
            return Err(StoreError::Compacted { asked: at, oldest: self.published.state.load().compacted });
        };
        let range = request.range.clone();
        let read = tokio::task::spawn_blocking(move || archive.read_at(&range, at)).await;
        let kvs = read.map_err(|e| StoreError::Unavailable(e.to_string()))??;
        // A compaction meanwhile may have taken some of what was read for.
        self.check_readable(at)?;
        Ok(limited(kvs, state.revision, request.limit))
    }

    fn check_readable(&self, at: Revision) -> Result<(), StoreError> {
        let state = self.published.state.load();
        if at < state.compacted {
            return Err(StoreError::Compacted { asked: at, oldest: state.compacted });
        }
        if at > state.revision {
            return Err(StoreError::FutureRevision { asked: at, newest: state.revision });
        }
        Ok(())
    }
}

fn read_state(state: &State, range: &KeyRange, limit: usize) -> RangeResult {
    let mut keys = state.range(range);
    let take = if limit == 0 { usize::MAX } else { limit };
    let kvs: Vec<_> = keys.by_ref().take(take).map(|live| live.kv.clone()).collect();
    let count = kvs.len() + keys.count();
    RangeResult { revision: state.revision, kvs, count }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.inner()?.published.state.load().revision)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        let inner = self.inner()?;
        let state = inner.published.state.load_full();
        match request.at {
            Some(at) if at != state.revision => inner.read_past(&request, at).await,
            _ => Ok(read_state(&state, &request.range, request.limit)),
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        self.inner()?.ask(|reply| Command::Txn(txn, reply)).await
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError> {
        let inner = self.inner()?;
        let state = inner.published.state.load();
        let next = if from == 0 { state.revision + 1 } else { from };
        if next < state.compacted {
            return Err(StoreError::Compacted { asked: next, oldest: state.compacted });
        }
        let follower = Follower {
            published: inner.published.clone(),
            archive: inner.archive.clone(),
            progress: inner.progress.clone(),
            range,
            next,
            ready: VecDeque::new(),
        };
        Ok(follower.stream())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner()?.ask(|reply| Command::Compact(revision, reply)).await
    }

    async fn grant_lease(&self, ttl_seconds: u64) -> Result<LeaseId, StoreError> {
        let inner = self.inner()?;
        let lease = inner.ask(|reply| Command::Grant(ttl_seconds, reply)).await?;
        inner.deadlines.start(lease, ttl_seconds);
        Ok(lease)
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        if self.inner()?.deadlines.renew(lease) { Ok(()) } else { Err(StoreError::NoSuchLease(lease)) }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let inner = self.inner()?;
        inner.revoke(lease).await?;
        inner.deadlines.forget(lease);
        Ok(())
    }

    fn keeps_values(&self) -> bool {
        true
    }
}
