//! Stops containers: asks, waits, then kills.

use super::kill::stop_signal;
use super::{Condition, Container, Status};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use pintle_linux::signal;
use std::sync::Arc;
use std::time::Duration;

/// Seconds that a container is given when nothing else is said.
const TIMEOUT_SECONDS: i64 = 10;

/// How a container is to be stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Instead of the container's own signal; empty is that.
    pub signal: String,
    /// Seconds; negative waits for ever.
    pub timeout: Option<i64>,
}

impl Daemon {
    /// Stops a container.
    ///
    /// # Errors
    /// 304 when it does not run.
    pub async fn stop_container(self: &Arc<Self>, wanted: &str, options: &StopOptions) -> Result<()> {
        let container = self.container(wanted)?;
        if !container.status().is_running() {
            return Err(DockerError::new(304, ""));
        }
        self.stop(&container, options).await
    }

    /// The same of one that may have ended meanwhile.
    pub(crate) async fn stop(self: &Arc<Self>, container: &Arc<Container>, options: &StopOptions) -> Result<()> {
        self.note(container, |r| r.stopped_by_hand = true);
        self.end_with(container, options).await
    }

    /// Stops a container because the daemon ends.
    pub(crate) async fn end_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        if container.status() == Status::Paused {
            self.unpause_container(&container.id).await?;
        }
        self.end_with(container, &StopOptions::default()).await
    }

    async fn end_with(self: &Arc<Self>, container: &Arc<Container>, options: &StopOptions) -> Result<()> {
        let number = match options.signal.as_str() {
            "" => stop_signal(container),
            name => signal::parse(name).ok_or_else(|| DockerError::invalid(format!("invalid signal: {name}")))?,
        };
        let own = container.look(|r| r.config.stop_timeout);
        let seconds = options.timeout.or(own).unwrap_or(TIMEOUT_SECONDS);
        let waiting = self.wait_for(container, Condition::NotRunning);
        self.signal(container, number).await?;
        let ended = match u64::try_from(seconds) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), waiting.done()).await.is_ok(),
            Err(_) => {
                waiting.done().await;
                true
            }
        };
        if !ended {
            self.signal(container, libc::SIGKILL).await?;
            self.wait_gone(container).await?;
        }
        self.tell_of(container, "stop", &[]);
        Ok(())
    }
}
