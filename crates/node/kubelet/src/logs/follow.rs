//! Waits until a log file grows or is replaced, or its container ends.

use futures::StreamExt;
use pintle_cri::{ContainerState, EventKind, EventStream, Runtime};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use std::path::Path;
use std::sync::Arc;
use tokio::net::unix::pipe::Receiver;

/// Somebody who follows a log.
pub struct Follower {
    /// Not a pipe, but read like one: tokio has no safe way to wait for other descriptors.
    notices: Receiver,
    events: EventStream,
    id: String,
}

impl Follower {
    /// Begins to follow; nothing when the container does not run any more.
    pub async fn new(path: &Path, id: &str, runtime: Arc<dyn Runtime>) -> std::io::Result<Option<Self>> {
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // The directory rather than the file: a rotation puts another file in its place.
        let dir = path.parent().unwrap_or(path);
        add_watch(&fd, dir, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        let events = runtime.events().await.map_err(std::io::Error::other)?;
        // Asked after the events were subscribed to, so that the end can't be missed.
        let runs = runtime.container_status(id).await.is_ok_and(|s| s.state != ContainerState::Exited);
        Ok(runs.then_some(Self { notices: Receiver::from_owned_fd_unchecked(fd)?, events, id: id.to_owned() }))
    }

    /// Returns when there may be something new. False when the container has ended: what is there now is all.
    pub async fn changed(&mut self) -> std::io::Result<bool> {
        loop {
            tokio::select! {
                ready = self.notices.readable() => {
                    ready?;
                    let mut buffer = [0u8; 4096];
                    // Only that something happened matters, not what.
                    match self.notices.try_read(&mut buffer) {
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        result => return result.map(|_| true),
                    }
                }
                event = self.events.next() => match event {
                    None => return Ok(false),
                    Some(event) => {
                        let ended = matches!(event.kind, EventKind::ContainerStopped | EventKind::ContainerDeleted);
                        if ended && event.container_id == self.id {
                            return Ok(false);
                        }
                    }
                },
            }
        }
    }
}
