//! Stops all processes of a container where they are, and lets them go on.

use super::kill::not_running;
use super::record::Status;
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};

impl Daemon {
    /// # Errors
    /// 409 when it does not run, or is paused already.
    pub async fn pause_container(&self, wanted: &str) -> Result<()> {
        let container = self.container(wanted)?;
        let _changing = container.changing.lock().await;
        match container.status() {
            Status::Running => {}
            Status::Paused => {
                return Err(DockerError::conflict(format!("Container {} is already paused", container.id)));
            }
            Status::Restarting => {
                return Err(DockerError::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => return Err(not_running(&container.id)),
        }
        self.engine.freeze_container(&container.id, true).await?;
        self.change(&container, |r| r.state.status = Status::Paused)?;
        self.tell_of(&container, "pause", &[]);
        Ok(())
    }

    /// # Errors
    /// 409 when it is not paused.
    pub async fn unpause_container(&self, wanted: &str) -> Result<()> {
        let container = self.container(wanted)?;
        let _changing = container.changing.lock().await;
        if container.status() != Status::Paused {
            return Err(DockerError::conflict(format!("Container {} is not paused", container.id)));
        }
        self.engine.freeze_container(&container.id, false).await?;
        self.change(&container, |r| r.state.status = Status::Running)?;
        self.tell_of(&container, "unpause", &[]);
        Ok(())
    }
}
