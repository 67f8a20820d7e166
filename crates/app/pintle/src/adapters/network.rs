//! Gives the runtime its network from the node's bridge.

use crate::pod_network::PodNetwork;
use async_trait::async_trait;
use pintle_cri::{PodSandboxConfig, Protocol};
use pintle_network::{BridgeNetwork, HostPort};
use pintle_runtime::{PortError, SandboxNetwork};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Upstream's words for a network that waits for its settings.
const UNASSIGNED: &str = "the network is not initialized: this node has no podCIDR yet";

/// The bridge talks to the kernel in blocking calls of a few milliseconds.
pub(crate) struct BridgedSandboxes(pub(crate) Arc<PodNetwork>);

impl BridgedSandboxes {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BridgeNetwork) -> pintle_network::Result<T> + Send + 'static,
    ) -> Result<T, PortError> {
        let open = self.0.current().ok_or_else(|| PortError::Failed(UNASSIGNED.to_owned()))?;
        let done = tokio::task::spawn_blocking(move || work(&open.bridge)).await;
        done.map_err(|e| PortError::Failed(e.to_string()))?.map_err(|e| PortError::Failed(e.to_string()))
    }
}

/// For an engine without pods: Docker's networks are connected by the Docker daemon.
pub(crate) struct NoPodNetwork;

#[async_trait]
impl SandboxNetwork for NoPodNetwork {
    async fn ready(&self) -> Result<(), String> {
        Err("this engine runs without a pod network".to_owned())
    }

    async fn setup(&self, _: &str, _: &Path, _: &PodSandboxConfig) -> Result<Vec<IpAddr>, PortError> {
        Err(PortError::Unsupported("a pod network without a server".to_owned()))
    }

    async fn teardown(&self, _: &str, _: &Path) -> Result<(), PortError> {
        Ok(())
    }

    async fn retain(&self, _: &[String]) -> Result<(), PortError> {
        Ok(())
    }
}

fn host_ports(config: &PodSandboxConfig) -> Result<Vec<HostPort>, PortError> {
    let mapped = config.port_mappings.iter().filter(|m| m.host_port != 0);
    mapped
        .map(|mapping| {
            let host_ip = match mapping.host_ip.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| PortError::InvalidArgument(format!("{text:?} is no address")))?),
            };
            let protocol = match mapping.protocol {
                Protocol::Tcp => pintle_network::Protocol::Tcp,
                Protocol::Udp => pintle_network::Protocol::Udp,
                Protocol::Sctp => pintle_network::Protocol::Sctp,
            };
            Ok(HostPort { protocol, host_ip, host_port: mapping.host_port, sandbox_port: mapping.container_port })
        })
        .collect()
}

fn new_pod(config: &PodSandboxConfig, addresses: &[IpAddr]) -> pintle_policy::NewPod {
    let pod = &config.metadata;
    pintle_policy::NewPod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        labels: config.labels.clone(),
        addresses: addresses.to_vec(),
    }
}

#[async_trait]
impl SandboxNetwork for BridgedSandboxes {
    async fn ready(&self) -> Result<(), String> {
        self.blocking(BridgeNetwork::status).await.map(drop).map_err(|e| e.to_string())
    }

    async fn setup(&self, sandbox_id: &str, netns: &Path, config: &PodSandboxConfig) -> Result<Vec<IpAddr>, PortError> {
        let (id, netns, ports) = (sandbox_id.to_owned(), netns.to_owned(), host_ports(config)?);
        let attachment = self.blocking(move |network| network.setup(&id, &netns, &ports)).await?;
        self.0.guard.admit(new_pod(config, &attachment.addresses)).await;
        Ok(attachment.addresses)
    }

    async fn teardown(&self, sandbox_id: &str, _: &Path) -> Result<(), PortError> {
        if self.0.current().is_none() {
            return Ok(());
        }
        let id = sandbox_id.to_owned();
        self.blocking(move |network| network.teardown(&id)).await
    }

    async fn retain(&self, live: &[String]) -> Result<(), PortError> {
        if self.0.current().is_none() {
            return Ok(());
        }
        let live = live.to_vec();
        self.blocking(move |network| network.retain(&live)).await
    }
}
