//! Works a queue off: some workers, failures retried with back-off, panics contained.

use crate::queue::Queue;
use futures::FutureExt;
use std::fmt::{Debug, Display};
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
pub async fn run_reconciler<T, F, Fut, E>(
    name: &'static str,
    queue: Queue<T>,
    workers: usize,
    reconcile: F,
    stop: CancellationToken,
) where
    T: Clone + Eq + Hash + Debug + Send + 'static,
    F: Fn(T) -> Fut + Sync,
    Fut: Future<Output = Result<Outcome, E>> + Send,
    E: Display + Send,
{
    let work = futures::future::join_all((0..workers.max(1)).map(|_| work(name, &queue, &reconcile)));
    let _finished = stop.run_until_cancelled(work).await;
    queue.shut_down();
}

async fn work<T, F, Fut, E>(name: &'static str, queue: &Queue<T>, reconcile: &F)
where
    T: Clone + Eq + Hash + Debug,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<Outcome, E>>,
    E: Display,
{
    while let Some(key) = queue.next().await {
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
                // The first failures are nearly always stale reads that the next event mends.
                if queue.failures(&key) < 3 {
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
}
