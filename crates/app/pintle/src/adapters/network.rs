//! Gives the runtime its network from the node's bridge.

use crate::pod_network::PodNetwork;
use async_trait::async_trait;
use pintle_cri::{PodSandboxConfig, Protocol};
use pintle_network::{Bandwidth, BridgeNetwork, CniNetwork, CniSandbox, HostPort};
use pintle_runtime::{PortError, SandboxNetwork};
use pintle_types::quantity::Quantity;
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

/// How fast the pod may be, from the annotations that the bandwidth plugin reads.
fn bandwidth(config: &PodSandboxConfig) -> Result<Bandwidth, PortError> {
    /// Bits a second: upstream's bounds, and its words about them.
    const LEAST: i64 = 1_000;
    const MOST: i64 = 1_000_000_000_000_000;
    let rate = |key: &str| -> Result<Option<u64>, PortError> {
        let Some(text) = config.annotations.get(key) else { return Ok(None) };
        let wrong = |why: &str| PortError::InvalidArgument(format!("{key}: {text:?}: {why}"));
        let bits = text.parse::<Quantity>().map_err(|error| wrong(&error.to_string()))?.units();
        match bits {
            ..LEAST => Err(wrong("resource is unreasonably small (< 1kbit)")),
            LEAST..=MOST => Ok(u64::try_from(bits / 8).ok()),
            _ => Err(wrong("resource is unreasonably large (> 1Pbit)")),
        }
    };
    Ok(Bandwidth { receive: rate("kubernetes.io/ingress-bandwidth")?, send: rate("kubernetes.io/egress-bandwidth")? })
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
        let bandwidth = bandwidth(config)?;
        let set_up = move |network: &BridgeNetwork| {
            let attachment = network.setup(&id, &netns, &ports)?;
            if bandwidth != Bandwidth::default() {
                network.limit(&id, &netns, bandwidth)?;
            }
            Ok(attachment)
        };
        let attachment = self.blocking(set_up).await?;
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

/// Connects pods by CNI plugins. The bridge stays for what the node itself has on it: the address of DNS.
pub(crate) struct PluggedSandboxes {
    pub(crate) plugins: Arc<CniNetwork>,
    pub(crate) guard: pintle_policy::Guard,
}

impl PluggedSandboxes {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CniNetwork) -> pintle_network::Result<T> + Send + 'static,
    ) -> Result<T, PortError> {
        let plugins = Arc::clone(&self.plugins);
        let done = tokio::task::spawn_blocking(move || work(&plugins)).await;
        done.map_err(|e| PortError::Failed(e.to_string()))?.map_err(|e| PortError::Failed(e.to_string()))
    }
}

#[async_trait]
impl SandboxNetwork for PluggedSandboxes {
    async fn ready(&self) -> Result<(), String> {
        self.blocking(CniNetwork::status).await.map_err(|e| e.to_string())
    }

    async fn setup(&self, sandbox_id: &str, netns: &Path, config: &PodSandboxConfig) -> Result<Vec<IpAddr>, PortError> {
        let pod = &config.metadata;
        let arguments = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", &pod.namespace),
            ("K8S_POD_NAME", &pod.name),
            ("K8S_POD_INFRA_CONTAINER_ID", sandbox_id),
            ("K8S_POD_UID", &pod.uid),
        ];
        let sandbox = CniSandbox {
            id: sandbox_id.to_owned(),
            namespace: netns.to_owned(),
            arguments: arguments.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            host_ports: host_ports(config)?,
            bandwidth: bandwidth(config)?,
        };
        let addresses = self.blocking(move |plugins| plugins.setup(&sandbox)).await?;
        self.guard.admit(new_pod(config, &addresses)).await;
        Ok(addresses)
    }

    async fn teardown(&self, sandbox_id: &str, netns: &Path) -> Result<(), PortError> {
        let (id, netns) = (sandbox_id.to_owned(), netns.to_owned());
        self.blocking(move |plugins| plugins.teardown(&id, &netns)).await
    }

    async fn retain(&self, live: &[String]) -> Result<(), PortError> {
        let live = live.to_vec();
        self.blocking(move |plugins| plugins.retain(&live)).await
    }
}
