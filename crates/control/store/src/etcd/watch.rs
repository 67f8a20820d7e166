//! Watches of etcd: a stream of a connection of its own, begun anew on another member when it breaks, from the revision
//! after the last one that was seen.

use super::endpoints::Endpoints;
use super::grpc::{Answers, CallError, Messages};
use super::messages::{self, Names, Watched};
use super::{PROGRESS, RANGE, STATUS, TXN, WATCH};
use crate::{Event, KeyRange, Op, Revision, StoreError, Txn, WatchBatch, WatchStream};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a member may take to begin a watch.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes that one response in pieces may have, roughly counted by its events.
const MAX_EVENTS: usize = 1 << 20;

/// What all watches of a store share.
#[derive(Clone)]
pub(super) struct Common {
    pub endpoints: Arc<Endpoints>,
    pub names: Names,
    /// Counts how often somebody asked how far the watches are.
    pub asked: watch::Receiver<u64>,
    /// Closed with the store.
    pub open: watch::Receiver<()>,
}

pub(super) struct Watcher {
    pub common: Common,
    pub range: KeyRange,
    /// The next revision to see.
    pub next: Revision,
    session: Option<Session>,
    ready: VecDeque<WatchBatch>,
}

/// A watch on one member.
struct Session {
    connection: super::grpc::Channel,
    messages: Messages,
    answers: Answers,
    /// The first pieces of a response.
    pieces: Vec<(Revision, Event)>,
    /// Whether the member says truthfully how far it is; not known before it was asked.
    truthful: Option<bool>,
}

enum Step {
    Answer(Result<Option<bytes::Bytes>, CallError>),
    Asked,
    Closed,
}

impl Watcher {
    pub(super) fn new(common: Common, range: KeyRange, next: Revision) -> Self {
        Self { common, range, next, session: None, ready: VecDeque::new() }
    }

    /// Begins the watch, so that a start that is compacted is told at once, and goes on as a stream.
    pub(super) async fn start(mut self) -> Result<WatchStream, StoreError> {
        // A cluster that does not answer now is waited for in the stream.
        if let Err(error) = self.begin().await {
            tracing::warn!(%error, "cannot begin a watch; trying on");
        }
        Ok(Box::pin(futures::stream::try_unfold(self, |mut watcher| async move {
            let batch = watcher.next_batch().await?;
            Ok(Some((batch, watcher)))
        })))
    }

    async fn begin(&mut self) -> Result<(), CallError> {
        let connection = timeout(BEGIN_TIMEOUT, self.common.endpoints.connect());
        let connection = connection.await.map_err(|_| CallError::NotSent("no member answers".into()))??;
        let create = messages::watch(&self.common.names, &self.range, self.next);
        let opened = timeout(BEGIN_TIMEOUT, connection.open_stream(WATCH, &create)).await;
        let (messages, answers) = opened.map_err(|_| CallError::Broken("the watch does not begin".into()))??;
        self.session = Some(Session { connection, messages, answers, pieces: Vec::new(), truthful: None });
        Ok(())
    }

    async fn next_batch(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let Some(session) = &mut self.session else {
                self.begin_again().await?;
                continue;
            };
            let step = tokio::select! {
                answer = session.answers.next() => Step::Answer(answer),
                asked = self.common.asked.changed() => if asked.is_ok() { Step::Asked } else { Step::Closed },
                _ = self.common.open.changed() => Step::Closed,
            };
            match step {
                Step::Closed => return Err(StoreError::Closed),
                Step::Asked => self.ask_progress().await,
                Step::Answer(Ok(Some(message))) => match messages::read_watched(&self.common.names, &message) {
                    Ok(watched) => self.take(watched)?,
                    Err(error) => self.lose(&error),
                },
                Step::Answer(Ok(None)) => self.lose(&"it ended"),
                Step::Answer(Err(error)) => self.lose(&error),
            }
        }
    }

    fn lose(&mut self, why: &dyn std::fmt::Display) {
        tracing::info!(%why, next = self.next, "a watch of etcd broke; it goes on elsewhere");
        self.session = None;
    }

    async fn begin_again(&mut self) -> Result<(), StoreError> {
        let mut open = self.common.open.clone();
        let begin = async {
            if let Err(error) = self.begin().await {
                tracing::debug!(%error, "cannot begin a watch; trying on");
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = begin => Ok(()),
            _ = open.changed() => Err(StoreError::Closed),
        }
    }

    fn take(&mut self, watched: Watched) -> Result<(), StoreError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if watched.compacted != 0 {
            return Err(StoreError::Compacted { asked: self.next, oldest: watched.compacted });
        }
        if watched.canceled {
            self.lose(&watched.reason);
            return Ok(());
        }
        if watched.created {
            return Ok(());
        }
        session.pieces.extend(watched.events);
        if session.pieces.len() > MAX_EVENTS {
            return Err(StoreError::Unavailable(format!("one change of etcd has more than {MAX_EVENTS} keys")));
        }
        if watched.fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut session.pieces);
        if events.is_empty() {
            // The word that nothing is outstanding.
            self.reached(watched.revision);
        }
        for (revision, event) in events {
            self.push(revision, event);
        }
        Ok(())
    }

    fn reached(&mut self, revision: Revision) {
        if revision >= self.next {
            self.next = revision + 1;
            self.ready.push_back(WatchBatch { revision, events: Vec::new() });
        }
    }

    fn push(&mut self, revision: Revision, event: Event) {
        let same = self.ready.back().is_some_and(|last| last.revision == revision);
        // What was seen before the watch broke is not seen again.
        if revision < self.next && !same {
            return;
        }
        self.next = revision + 1;
        if !same {
            self.ready.push_back(WatchBatch { revision, events: Vec::new() });
        }
        let (Event::Put { kv, .. } | Event::Delete { kv, .. }) = &event;
        if let Some(batch) = self.ready.back_mut().filter(|_| !kv.key.ends_with(PROGRESS)) {
            batch.events.push(event);
        }
    }

    /// Brings about a word on how far the watch is.
    async fn ask_progress(&mut self) {
        let Some(session) = &mut self.session else { return };
        if session.truthful.is_none() {
            let status = timeout(BEGIN_TIMEOUT, session.connection.call_bytes(STATUS, &[], None)).await;
            let version = status.ok().and_then(Result::ok).and_then(|message| messages::read_version(&message).ok());
            session.truthful = version.as_deref().map(tells_progress_truthfully);
        }
        match session.truthful {
            Some(true) => session.messages.send(&messages::progress_request()),
            // A change in the watched range comes after all that were before it.
            Some(false) => self.mark().await,
            None => {}
        }
    }

    async fn mark(&mut self) {
        if self.range.end.is_none() {
            return;
        }
        let Some(session) = &self.session else { return };
        let key = [&self.range.start[..], PROGRESS].concat();
        let put = Op::Put { key: key.into(), value: bytes::Bytes::new(), lease: 0 };
        let message = messages::txn(&self.common.names, &Txn { then: vec![put], ..Txn::default() });
        let marked = timeout(BEGIN_TIMEOUT, session.connection.call_bytes(TXN, &message, None)).await;
        if !matches!(marked, Ok(Ok(_))) {
            tracing::debug!("cannot ask a member of etcd how far it is");
        }
    }
}

/// The oldest revision that is still there. etcd says it only to watches that ask for an older one.
pub(super) async fn oldest(common: &Common) -> Option<Revision> {
    let mut watcher = Watcher::new(common.clone(), KeyRange::key(&b"\0"[..]), 1);
    watcher.begin().await.ok()?;
    let answers = &mut watcher.session.as_mut()?.answers;
    let found = timeout(BEGIN_TIMEOUT, async {
        loop {
            let watched = messages::read_watched(&common.names, &answers.next().await.ok()??).ok()?;
            if watched.compacted != 0 {
                return Some(watched.compacted);
            }
        }
    });
    found.await.ok()?
}

/// The newest revision, asked of the whole cluster.
pub(super) async fn newest(endpoints: &Endpoints) -> Result<Revision, CallError> {
    let message = endpoints.call(super::endpoints::Kind::Read, RANGE, &messages::revision()).await?;
    messages::read_revision(&message).map_err(|e| CallError::Broken(e.to_string()))
}

/// Older versions may name a revision whose changes they have not sent (etcd-io/etcd, issue 15220).
fn tells_progress_truthfully(version: &str) -> bool {
    let numbers: Vec<u32> = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    match numbers[..] {
        [3, 4, patch, ..] => patch >= 31,
        [3, 5, patch, ..] => patch >= 13,
        [major, minor, ..] => (major, minor) > (3, 5),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_tell_progress_truthfully() {
        for (version, expected) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("3.3.0", false),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(tells_progress_truthfully(version), expected, "{version}");
        }
    }
}
