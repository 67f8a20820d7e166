//! Removes containers with all that they have.

use super::Container;
use super::record::{Status, snapshot_key};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use std::sync::Arc;

/// What is removed with a container, and whether it may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// Only the link of this name.
    pub link: bool,
}

impl Daemon {
    /// Removes a container.
    ///
    /// # Errors
    /// 409 when it runs and `force` is not said.
    pub async fn remove_container(self: &Arc<Self>, wanted: &str, options: RemoveOptions) -> Result<()> {
        let container = self.container(wanted)?;
        if options.link {
            return Err(DockerError::invalid(format!(
                "Conflict, cannot remove the default link name of the container: {wanted}"
            )));
        }
        if !options.force {
            refuse_running(&container)?;
        }
        if container.status().is_running() {
            self.note(&container, |r| r.host.auto_remove = false);
            self.signal(&container, libc::SIGKILL).await?;
            self.wait_gone(&container).await?;
        }
        self.erase(&container, options.volumes).await
    }

    /// Removes one that does not run. The second of two that try it finds nothing left to do.
    pub(crate) async fn erase(self: &Arc<Self>, container: &Arc<Container>, volumes: bool) -> Result<()> {
        let _changing = container.changing.lock().await;
        if container.ends.borrow().removed {
            return Ok(());
        }
        // Written down first, so that a removal which is cut off is finished as it was meant.
        let before = self.change(container, |r| {
            r.removes_volumes |= volumes;
            std::mem::replace(&mut r.state.status, Status::Removing)
        })?;
        if before.is_running() && before != Status::Restarting {
            // It was started again meanwhile.
            self.note(container, |r| {
                r.state.status = before;
                r.removes_volumes = false;
            });
            return refuse_running(container);
        }
        self.take_down(container).await;
        container.attaching.lock().clear();
        let erased = self.erase_files(container).await;
        if let Err(error) = erased {
            self.note(container, |r| r.state.status = Status::Dead);
            return Err(DockerError::internal(format!("cannot remove container \"{}\": {error}", container.name())));
        }
        self.containers.drop_out(&container.id);
        self.drop_execs(container);
        self.tell_of(container, "destroy", &[]);
        container.ends.send_modify(|ends| ends.removed = true);
        Ok(())
    }

    async fn erase_files(&self, container: &Container) -> Result<()> {
        let (images, key) = (Arc::clone(&self.images), snapshot_key(&container.id));
        let removed = tokio::task::spawn_blocking(move || images.remove_snapshot(&key)).await;
        removed.map_err(|e| DockerError::io("remove a layer", e))??;
        if container.look(|r| r.removes_volumes) {
            self.remove_volumes_made_for(&container.id).await;
        }
        self.containers.folder.remove(&container.id)
    }
}

fn refuse_running(container: &Container) -> Result<()> {
    let why = match container.status() {
        Status::Running => "is running: stop the container before removing or force remove",
        Status::Paused => "is paused and must be unpaused first",
        Status::Restarting => "is restarting: stop the container before removing or force remove",
        Status::Removing => {
            return Err(DockerError::conflict(format!(
                "removal of container {} is already in progress",
                container.name()
            )));
        }
        _ => return Ok(()),
    };
    Err(DockerError::conflict(format!("cannot remove container \"{}\": container {why}", container.name())))
}
