//! What the runtime has of a pod right now: its sandboxes and containers, the newest first.

use crate::labels;
use pintle_cri::{
    ContainerFilter, ContainerState, ContainerStatus, CriError, CriResult, NamespaceMode, PodSandboxFilter,
    PodSandboxStatus, Runtime, SandboxState,
};

/// One look at the runtime. Nothing is kept from an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<PodSandboxStatus>,
    /// Of all sandboxes, newest first.
    pub containers: Vec<ContainerStatus>,
}

impl Observed {
    /// Asks the runtime. What vanishes between two questions is left out.
    pub async fn of(runtime: &dyn Runtime, uid: &str) -> CriResult<Self> {
        let filter = PodSandboxFilter { labels: labels::selector(uid), ..Default::default() };
        let mut sandboxes = Vec::new();
        for sandbox in runtime.list_pod_sandbox(filter).await? {
            sandboxes.extend(there(runtime.pod_sandbox_status(&sandbox.id).await)?);
        }
        let filter = ContainerFilter { labels: labels::selector(uid), ..Default::default() };
        let mut containers = Vec::new();
        for container in runtime.list_containers(filter).await? {
            containers.extend(there(runtime.container_status(&container.id).await)?);
        }
        sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.metadata.attempt)));
        containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.metadata.attempt)));
        Ok(Self { sandboxes, containers })
    }

    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes.first()
    }

    /// The newest sandbox, when it is ready.
    pub fn ready_sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandbox().filter(|s| s.state == SandboxState::Ready)
    }

    /// The newest container of that name.
    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.metadata.name == name)
    }

    /// The container of that name before the newest one.
    pub fn previous(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().filter(|c| c.metadata.name == name).nth(1)
    }

    /// The newest container of that name that has ended.
    pub fn ended(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.metadata.name == name && c.state == ContainerState::Exited)
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|c| c.state == ContainerState::Running)
    }

    /// The pod's addresses, once its sandbox is ready.
    pub fn ips(&self) -> &[String] {
        self.ready_sandbox().map(|s| s.ips.as_slice()).unwrap_or_default()
    }
}

fn there<T>(result: CriResult<T>) -> CriResult<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(CriError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a sandbox runs on the host's network.
pub fn on_host_network(sandbox: &PodSandboxStatus) -> bool {
    sandbox.namespaces.network == NamespaceMode::Node
}
