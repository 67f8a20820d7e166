//! Joins clients to a container's stdio, those that come before its start too.

use super::record::Status;
use super::{Condition, Container};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use pintle_cri::{AttachRequest, ExecSession};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Clients that may wait for one container to start.
const MAX_WAITING: usize = 64;

/// How long the end of a container takes to be noted, at most.
const ENDING: Duration = Duration::from_secs(1);

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachWanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A client that waits for the start.
pub(crate) struct Pending {
    pub wanted: AttachWanted,
    pub give: oneshot::Sender<Result<ExecSession>>,
}

/// The streams of a container.
pub struct Attached {
    /// Comes now, or as soon as the container starts; nothing when it goes before that.
    pub session: BoxFuture<'static, Option<Result<ExecSession>>>,
    /// What the container's log has from before this time, in nanoseconds since the epoch, is not in the streams, and
    /// nothing else is missing. Nothing where that is not known.
    pub since: Option<i64>,
}

impl Daemon {
    /// Joins a client to a container.
    ///
    /// # Errors
    /// 409 for a paused container or one that is about to be started again.
    pub async fn attach_container(&self, container: &Arc<Container>, wanted: AttachWanted) -> Result<Attached> {
        let status = container.status();
        match status {
            Status::Paused => {
                return Err(DockerError::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    container.id
                )));
            }
            Status::Restarting => {
                return Err(DockerError::conflict(format!(
                    "container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {}
        }
        self.tell_of(container, "attach", &[]);
        if status == Status::Running {
            let request = AttachRequest {
                container_id: container.id.clone(),
                stdin: wanted.stdin,
                tty: false,
                stdout: wanted.stdout,
                stderr: wanted.stderr,
            };
            match self.engine.attach_since(request).await {
                Ok((session, since)) => return Ok(Attached { session: ready(Some(Ok(session))).boxed(), since }),
                // It has just ended, and that is about to be noted: whoever comes now waits for its next start.
                Err(error) => {
                    let ended = self.wait_for(container, Condition::NotRunning).done();
                    if tokio::time::timeout(ENDING, ended).await.is_err() {
                        return Err(error.into());
                    }
                }
            }
        }
        let (give, given) = oneshot::channel();
        let mut waiting = container.attaching.lock();
        waiting.retain(|client| !client.give.is_closed());
        if waiting.len() >= MAX_WAITING {
            return Err(DockerError::conflict("too many clients wait for the container to start"));
        }
        waiting.push(Pending { wanted, give });
        // With the list locked: a start that gives the streams takes it first.
        Ok(Attached { session: given.map(std::result::Result::ok).boxed(), since: Some(self.now()) })
    }

    /// A client left a container by its keys.
    pub fn note_detached(&self, container: &Container) {
        self.tell_of(container, "detach", &[]);
    }

    /// Tells the container's terminal its size.
    ///
    /// # Errors
    /// 409 when it does not run.
    pub async fn resize_container(&self, wanted: &str, columns: u16, rows: u16) -> Result<()> {
        let container = self.container(wanted)?;
        if container.status() != Status::Running {
            return Err(DockerError::conflict(format!("container {} is not running", container.id)));
        }
        // One without a terminal has no size to set, as with Docker.
        let _ = self.engine.resize_container(&container.id, columns, rows).await;
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tell_of(&container, "resize", &[("height", &rows), ("width", &columns)]);
        Ok(())
    }
}
