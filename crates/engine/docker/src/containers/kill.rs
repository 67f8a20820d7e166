//! Sends signals to containers.

use super::record::Status;
use super::{Condition, Container};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use pintle_cri::CriError;
use pintle_linux::signal;
use std::sync::Arc;
use std::time::Duration;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// How long a killed container may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

impl Daemon {
    /// Sends a signal by name or number; empty is SIGKILL, whose effect is waited for.
    ///
    /// # Errors
    /// 400 for what is no signal, 409 when the container does not run.
    pub async fn kill_container(self: &Arc<Self>, wanted: &str, name: &str) -> Result<()> {
        let failed = |e: DockerError| DockerError::new(e.status, format!("cannot kill container: {wanted}: {e}"));
        let number = match name {
            "" => Some(SIGKILL),
            name => signal::parse(name),
        };
        let number = number.ok_or_else(|| failed(DockerError::invalid(format!("invalid signal: {name}"))))?;
        let container = self.container(wanted).map_err(failed)?;
        if !container.status().is_running() {
            return Err(failed(not_running(&container.id)));
        }
        self.signal(&container, number).await.map_err(failed)?;
        if number == SIGKILL {
            self.wait_gone(&container).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Sends a signal; one that asks it to end keeps its policy from starting it again.
    pub(crate) async fn signal(&self, container: &Container, number: i32) -> Result<()> {
        let stop = stop_signal(container);
        // What the daemon itself stops at its end is not stopped by hand.
        if (number == SIGKILL || number == stop) && !self.is_stopping() {
            self.note(container, |r| r.stopped_by_hand = true);
        }
        if container.status() == Status::Restarting && self.give_up_restart(container).await {
            return Ok(());
        }
        let paused = container.status() == Status::Paused;
        match self.engine.signal_container(&container.id, number).await {
            // It ends just now.
            Ok(()) | Err(CriError::FailedPrecondition(_) | CriError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if paused && (number == SIGKILL || number == stop) {
            // What is frozen cannot die.
            self.engine.freeze_container(&container.id, false).await?;
            self.note(container, |r| {
                if r.state.status == Status::Paused {
                    r.state.status = Status::Running;
                }
            });
        }
        self.tell_of(container, "kill", &[("signal", &number.to_string())]);
        Ok(())
    }

    /// A container that waits to be started again is stopped. False when it was started just now.
    async fn give_up_restart(&self, container: &Container) -> bool {
        let _changing = container.changing.lock().await;
        if container.status() != Status::Restarting {
            return false;
        }
        self.forget_restart(container);
        container.ends.send_modify(|ends| ends.exits += 1);
        true
    }

    /// Waits until a killed container has ended.
    pub(crate) async fn wait_gone(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let waiting = self.wait_for(container, Condition::NotRunning);
        let gone = tokio::time::timeout(KILL_TIMEOUT, waiting.done()).await;
        gone.map(drop)
            .map_err(|_| DockerError::internal("tried to kill container, but did not receive an exit event".to_owned()))
    }
}

/// The signal that asks a container to end.
pub(crate) fn stop_signal(container: &Container) -> i32 {
    container.look(|r| signal::parse(&r.config.stop_signal)).unwrap_or(SIGTERM)
}

pub(crate) fn not_running(id: &str) -> DockerError {
    DockerError::conflict(format!("container {id} is not running"))
}
