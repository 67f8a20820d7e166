//! The one writer: takes what was asked for while the last commit ran, and makes it durable with one fsync.

use super::disk::{Commit, Disk, Garbage, LeaseChange};
use super::history::History;
use super::state::{Change, LeaseState, Row, State, row_revision};
use crate::{Event, LeaseId, Revision, StoreError, Txn, TxnResult, WatchBatch};
use arc_swap::ArcSwap;
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Transactions that share one commit, at most.
const GROUP: usize = 1024;
/// Replaced rows deleted in one step.
const COLLECT: usize = 256;
/// How finely the age of revisions is known.
const TICK: Duration = Duration::from_secs(10);

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
pub(super) enum Command {
    Txn(Txn, Reply<TxnResult>),
    Compact(Revision, Reply<()>),
    Grant(u64, Reply<LeaseId>),
    Revoke(LeaseId, Reply<()>),
}

/// An answer that waits until its change is durable.
enum Answer {
    Txn(Reply<TxnResult>, TxnResult),
    Done(Reply<()>),
    Lease(Reply<LeaseId>, LeaseId),
}

impl Answer {
    fn send(self, outcome: Result<(), StoreError>) {
        // Whoever no longer waits does not want to know.
        match self {
            Self::Txn(reply, result) => drop(reply.send(outcome.map(|()| result))),
            Self::Done(reply) => drop(reply.send(outcome)),
            Self::Lease(reply, lease) => drop(reply.send(outcome.map(|()| lease))),
        }
    }
}

/// What readers see of the writer's work.
pub(super) struct Published {
    pub state: ArcSwap<State>,
    pub history: RwLock<History>,
    /// Commits that were waited for until they were on the disk.
    pub syncs: AtomicU64,
}

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub revisions: u64,
    pub time: Duration,
}

/// The writer's own part of the store.
pub(super) struct Writer {
    published: Arc<Published>,
    progress: watch::Sender<Revision>,
    disk: Option<Disk>,
    garbage: VecDeque<Garbage>,
    retention: Retention,
    /// When which revision was the newest, oldest first.
    ages: VecDeque<(Instant, Revision)>,
    /// Whether the last deletion of old revisions failed.
    stuck: bool,
}

impl Writer {
    pub(super) fn new(
        published: Arc<Published>,
        disk: Option<Disk>,
        garbage: VecDeque<Garbage>,
        retention: Retention,
    ) -> (Self, watch::Receiver<Revision>) {
        let revision = published.state.load().revision;
        let (progress, follow) = watch::channel(revision);
        let ages = VecDeque::from([(Instant::now(), revision)]);
        (Self { published, progress, disk, garbage, retention, ages, stuck: false }, follow)
    }

    /// Serves commands until all their senders are gone.
    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            let first = match self.idle_for() {
                Some(time) => match commands.recv_timeout(time) {
                    Ok(command) => Some(command),
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                },
                None => match commands.recv() {
                    Ok(command) => Some(command),
                    Err(mpsc::RecvError) => return,
                },
            };
            let group: Vec<Command> = first.into_iter().chain(commands.try_iter().take(GROUP)).collect();
            let writes = group.len();
            self.process(group);
            self.maintain(writes);
        }
    }

    /// How long to wait for commands before old revisions are looked after; nothing when there is nothing to do.
    fn idle_for(&self) -> Option<Duration> {
        if self.has_garbage() {
            return Some(if self.stuck { TICK } else { Duration::ZERO });
        }
        let state = self.published.state.load();
        (state.compacted < state.revision).then_some(TICK)
    }

    /// Does a group of commands: all durable together, then published, then answered.
    pub(super) fn process(&mut self, group: Vec<Command>) {
        let mut state = State::clone(&self.published.state.load());
        let mut commit = Commit::default();
        let mut answers = Vec::with_capacity(group.len());
        for command in group {
            answers.extend(take(command, &mut state, &mut commit));
        }
        let outcome = self.write(&commit);
        match &outcome {
            Ok(()) => self.publish(state, commit),
            Err(error) => tracing::error!(%error, changes = commit.changes.len(), "the store cannot write"),
        }
        for answer in answers {
            answer.send(outcome.clone());
        }
    }

    fn write(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let nothing = commit.changes.is_empty() && commit.leases.is_empty() && commit.compacted.is_none();
        match &mut self.disk {
            Some(disk) if !nothing => {
                self.published.syncs.fetch_add(1, Ordering::Relaxed);
                disk.commit(commit)
            }
            _ => Ok(()),
        }
    }

    fn publish(&mut self, state: State, commit: Commit) {
        let revision = state.revision;
        if self.disk.is_some() {
            self.garbage.extend(commit.changes.iter().flat_map(replaced));
        }
        {
            let mut history = self.published.history.write();
            for batch in batches(commit.changes) {
                history.push(batch);
            }
            history.forget_before(state.compacted);
        }
        // Readers take the state first and the history after it, so the history must never be behind.
        self.published.state.store(Arc::new(state));
        self.progress.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
    }

    /// Compacts what is old enough, and deletes some of what nobody can read any more: as much as was written, so that
    /// the file stays bounded however busy the store is.
    pub(super) fn maintain(&mut self, writes: usize) {
        let state = self.published.state.load_full();
        let target = self.aged(&state);
        if target > state.compacted {
            let (reply, _ignored) = oneshot::channel();
            self.process(vec![Command::Compact(target, reply)]);
        }
        let compacted = self.published.state.load().compacted;
        let collectable = self.garbage.iter().take_while(|(revision, _)| *revision < compacted).count();
        let count = collectable.min(COLLECT.max(2 * writes));
        let Some(disk) = self.disk.as_mut().filter(|_| count > 0) else { return };
        match disk.collect(self.garbage.iter().take(count).map(|(_, row)| *row)) {
            Ok(()) => {
                self.garbage.drain(..count);
                self.stuck = false;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot delete old revisions");
                self.stuck = true;
            }
        }
    }

    fn has_garbage(&self) -> bool {
        let compacted = self.published.state.load().compacted;
        self.garbage.front().is_some_and(|(revision, _)| *revision < compacted)
    }

    /// The revision that retention allows to compact to.
    fn aged(&mut self, state: &State) -> Revision {
        let now = Instant::now();
        if self.ages.back().is_none_or(|(at, _)| now.duration_since(*at) >= TICK) {
            self.ages.push_back((now, state.revision));
        }
        let mut by_age = state.compacted;
        while let Some((at, revision)) = self.ages.front().copied() {
            if now.duration_since(at) < self.retention.time {
                break;
            }
            by_age = by_age.max(revision);
            self.ages.pop_front();
        }
        // In steps, so that a busy store does not compact at each commit.
        let by_count = state.revision.saturating_sub(self.retention.revisions);
        let step = self.retention.revisions / 10 + 1;
        if by_count > state.compacted + step { by_age.max(by_count) } else { by_age }
    }
}

/// Does one command to the state that is being written. Answers that need not wait are given at once.
fn take(command: Command, state: &mut State, commit: &mut Commit) -> Option<Answer> {
    match command {
        Command::Txn(txn, reply) => match state.apply(&txn) {
            Ok((result, changes)) => {
                commit.changes.extend(changes);
                Some(Answer::Txn(reply, result))
            }
            Err(error) => {
                drop(reply.send(Err(error)));
                None
            }
        },
        Command::Compact(revision, reply) => {
            if revision > state.revision {
                let error = StoreError::FutureRevision { asked: revision, newest: state.revision };
                drop(reply.send(Err(error)));
                return None;
            }
            if revision > state.compacted {
                state.compacted = revision;
                commit.compacted = Some((revision, state.revision));
            }
            Some(Answer::Done(reply))
        }
        Command::Grant(ttl_seconds, reply) => {
            state.last_lease += 1;
            let id = state.last_lease;
            state.leases.insert(id, LeaseState { ttl_seconds, ..LeaseState::default() });
            commit.leases.push(LeaseChange::Granted(id, ttl_seconds));
            Some(Answer::Lease(reply, id))
        }
        Command::Revoke(lease, reply) => match state.revoke(lease) {
            Ok(changes) => {
                commit.changes.extend(changes);
                commit.leases.push(LeaseChange::Ended(lease));
                Some(Answer::Done(reply))
            }
            Err(error) => {
                drop(reply.send(Err(error)));
                None
            }
        },
    }
}

/// The rows that a change makes unreadable once its revision is compacted: the one before it, and a deletion's own.
fn replaced(change: &Change) -> impl Iterator<Item = Garbage> + use<> {
    let revision = row_revision(change.row);
    let previous = (change.previous_row != 0).then_some((revision, change.previous_row));
    let own: Option<(Revision, Row)> = matches!(change.event, Event::Delete { .. }).then_some((revision, change.row));
    previous.into_iter().chain(own)
}

/// Groups changes by revision.
fn batches(changes: Vec<Change>) -> Vec<WatchBatch> {
    let mut batches: Vec<WatchBatch> = Vec::new();
    for change in changes {
        let revision = row_revision(change.row);
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.events.push(change.event),
            _ => batches.push(WatchBatch { revision, events: vec![change.event] }),
        }
    }
    batches
}
