//! Many requests at a time, in batches that double: a quota that refuses the first is not asked five hundred times.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::future::Future;

/// Requests at a time at most.
const WIDEST: usize = 32;

/// Calls `request` for 0 up to `count`: one, then two, then four… at a time, and stops after a batch in which one
/// failed. Returns how many went well, and the first error.
pub async fn slow_start<F, Fut, E>(count: usize, request: F) -> (usize, Option<E>)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let (mut next, mut done, mut width) = (0, 0, 1);
    while next < count {
        let end = count.min(next + width);
        let mut batch: FuturesUnordered<Fut> = (next..end).map(&request).collect();
        let mut failed = None;
        while let Some(result) = batch.next().await {
            match result {
                Ok(()) => done += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if failed.is_some() {
            return (done, failed);
        }
        next = end;
        width = (width * 2).min(WIDEST);
    }
    (done, None)
}

/// Calls `request` for all items, some at a time, whatever fails. Returns the first error.
pub async fn all<T, F, Fut, E>(items: impl IntoIterator<Item = T>, request: F) -> Result<(), E>
where
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let mut results = futures::stream::iter(items.into_iter().map(request)).buffer_unordered(WIDEST);
    let mut failed = None;
    while let Some(result) = results.next().await {
        failed = failed.or(result.err());
    }
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_batch_that_fails_is_the_last() {
        let asked = Cell::new(0);
        let request = |i: usize| {
            asked.set(asked.get() + 1);
            async move { if i == 2 { Err("no") } else { Ok(()) } }
        };
        assert_eq!(slow_start(100, request).await, (2, Some("no")));
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test]
    async fn everything_is_asked_for_when_nothing_fails() {
        assert_eq!(slow_start(100, |_| async { Ok::<_, ()>(()) }).await, (100, None));
    }
}
