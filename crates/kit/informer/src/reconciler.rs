//! Works a queue off: some workers, failures retried with back-off, panics contained.

use crate::queue::Queue;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use pintle_client::ClientError;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a reconcile that went well wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, until something changes.
    Done,
    /// To run again after this time.
    After(Duration),
}

/// Runs `reconcile` for every key of the queue, `workers` at a time, until `stop`; then the queue is shut down. A
/// reconcile that runs at that moment is dropped at its next await: it must be safe to run again from the start.
pub async fn run_reconciler<T, F, Fut>(
    name: &'static str,
    queue: Queue<T>,
    workers: usize,
    reconcile: F,
    stop: CancellationToken,
) where
    T: Clone + Eq + Hash + Debug + Send + 'static,
    F: Fn(T) -> Fut + Sync,
    Fut: Future<Output = Result<Outcome, ClientError>> + Send,
{
    let _finished = stop.run_until_cancelled(work_off(name, &queue, workers.max(1), &reconcile)).await;
    queue.shut_down();
}

/// Until the queue is shut down. What is not at work takes no memory: a quiet cluster has a hundred idle workers.
async fn work_off<T, F, Fut>(name: &'static str, queue: &Queue<T>, workers: usize, reconcile: &F)
where
    T: Clone + Eq + Hash + Debug,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<Outcome, ClientError>>,
{
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            key = queue.next(), if running.len() < workers => match key {
                Some(key) => running.push(work(name, queue, key, reconcile)),
                None => break,
            },
            Some(()) = running.next() => (),
        }
    }
    running.collect().await
}

/// How often in a row a key may fail before anybody has to hear of it. The first failures are nearly always stale reads
/// that the next event mends; a conflict always is one, unless it lasts (ten in a row take five seconds).
fn patience(error: &ClientError) -> u32 {
    if error.is_conflict() { 10 } else { 3 }
}

async fn work<T, F, Fut>(name: &'static str, queue: &Queue<T>, key: T, reconcile: &F)
where
    T: Clone + Eq + Hash + Debug,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<Outcome, ClientError>>,
{
    let counters = queue.counters();
    match AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await {
        Ok(Ok(outcome)) => {
            counters.successes.fetch_add(1, Ordering::Relaxed);
            queue.forget(&key);
            if let Outcome::After(delay) = outcome {
                queue.add_after(key.clone(), delay);
            }
        }
        Ok(Err(error)) => {
            counters.failures.fetch_add(1, Ordering::Relaxed);
            if queue.failures(&key) < patience(&error) {
                tracing::debug!(reconciler = name, ?key, %error, "will try again");
            } else {
                tracing::warn!(reconciler = name, ?key, %error, "will try again");
            }
            queue.add_rate_limited(key.clone());
        }
        Err(_panic) => {
            counters.failures.fetch_add(1, Ordering::Relaxed);
            counters.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(reconciler = name, ?key, "the reconcile panicked; will try again");
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(&key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_types::Status;

    #[test]
    fn conflicts_are_told_of_only_when_they_last() {
        let conflict = Status::conflict("", "pods", "a", "the object has been modified");
        assert_eq!(patience(&conflict.into()), 10);
        let exists = Status::already_exists("", "pods", "a");
        for other in [exists, Status::internal("broken")] {
            assert_eq!(patience(&other.into()), 3);
        }
    }
}
