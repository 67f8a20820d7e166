//! The stream that one watcher reads.

use crate::object::WatchEvent;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A watcher's end of the cache.
pub(crate) struct CacheWatch {
    events: mpsc::Receiver<WatchEvent>,
}

impl CacheWatch {
    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        self.events.poll_recv(context)
    }
}
