//! Restarts containers.

use super::stop::StopOptions;
use crate::daemon::Daemon;
use crate::error::Result;
use std::sync::Arc;

impl Daemon {
    /// Stops a container, if it runs, and starts it. One that removes itself stays for that.
    pub async fn restart_container(self: &Arc<Self>, wanted: &str, options: &StopOptions) -> Result<()> {
        let container = self.container(wanted)?;
        if container.status().is_running() {
            let removes_itself = self.change(&container, |r| std::mem::replace(&mut r.host.auto_remove, false))?;
            let stopped = self.stop(&container, options).await;
            self.note(&container, |r| r.host.auto_remove = removes_itself);
            stopped?;
        }
        self.note(&container, |r| r.stopped_by_hand = false);
        self.run(&container).await?;
        self.tell_of(&container, "restart", &[]);
        Ok(())
    }
}
