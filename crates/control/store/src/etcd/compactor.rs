//! Compacts the cluster once in a while. Several servers agree by a key, as upstream's do: of those that come at the
//! same time one wins, so that the past is kept for one interval at least, however many servers there are.

use super::endpoints::{Endpoints, Kind};
use super::grpc::CallError;
use super::{COMPACT, TXN, messages};
use crate::Revision;
use pintle_protobuf::wire::{WireError, read};
use std::sync::Arc;
use std::time::Duration;

/// Where upstream's servers keep the count, too.
const KEY: &[u8] = b"compact_rev_key";

/// What this server knows of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    version: u64,
    /// The newest revision when the turn was taken.
    revision: Revision,
}

/// Runs for ever.
pub(super) async fn run(endpoints: Arc<Endpoints>, interval: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::time::sleep(interval).await;
        match step(&endpoints, turn).await {
            Ok(next) => turn = next,
            Err(error) => tracing::warn!(%error, "cannot compact etcd"),
        }
    }
}

/// Compacts to the revision of the last turn, if this server gets the next one; answers what it then knows.
async fn step(endpoints: &Endpoints, turn: Turn) -> Result<Turn, CallError> {
    let value = turn.revision.to_string();
    let message = messages::put_at_version(KEY, turn.version, value.as_bytes());
    let answer = endpoints.call(Kind::Write, TXN, &message).await?;
    let (won, now) = read_turn(&answer).map_err(|e| CallError::Broken(e.to_string()))?;
    if !won {
        return Ok(now);
    }
    let next = Turn { version: turn.version + 1, revision: now.revision };
    if turn.revision != 0 {
        match endpoints.call(Kind::Write, COMPACT, &messages::compact(turn.revision)).await {
            Ok(_) => {}
            Err(CallError::Status { message, .. }) if message.contains(super::COMPACTED) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(next)
}

/// Whether the turn was won; and the key's version if not, with the newest revision.
fn read_turn(answer: &[u8]) -> Result<(bool, Turn), WireError> {
    let result = messages::read_txn(&messages::Names::new("", ""), answer)?;
    let version = result.results.first().and_then(|kvs| kvs.first()).map_or(0, |kv| kv.version);
    // The whole answer must have been of the right form.
    read(answer, |_, _| Ok(()))?;
    Ok((result.succeeded, Turn { version, revision: result.revision }))
}
