//! Joins a container to its networks when it starts, and leaves them when it ends.

use super::Container;
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};

impl Daemon {
    /// Refuses networks that do not exist, before anything is made.
    pub(crate) fn check_networks(&self, container: &Container) -> Result<()> {
        let names: Vec<String> = container.look(|r| r.networks.keys().cloned().collect());
        for name in names {
            if !matches!(name.as_str(), "bridge" | "host" | "none") {
                let message = format!("failed to set up container networking: network {name} not found");
                return Err(DockerError::not_found(message));
            }
        }
        Ok(())
    }

    /// Connects the network namespace of a sandbox that is about to run the container.
    #[allow(clippy::unused_async)]
    pub(crate) async fn connect_networks(&self, _container: &Container, _sandbox_id: &str) -> Result<()> {
        Ok(())
    }

    /// Takes back what `connect_networks` gave. Succeeds when nothing is there.
    #[allow(clippy::unused_async)]
    pub(crate) async fn disconnect_networks(&self, _container: &Container) {}
}
