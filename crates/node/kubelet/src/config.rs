//! What the kubelet is told when it starts.

use crate::hardware::Hardware;
use crate::options::Options;
use crate::streams::Streaming;
use pintle_client::Client;
use pintle_clock::Clock;
use pintle_cri::Runtime;
use pintle_informer::Informers;
use pintle_types::k8s::api::core::v1::Taint;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that the kubelet needs from outside.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// The addresses that pods on the host's network have, and that the Node object tells: one, or one of each family
    /// with the primary one first.
    pub node_ips: Vec<IpAddr>,
    pub client: Client,
    /// Shared with the other parts of the process that watch.
    pub informers: Informers,
    pub runtime: Arc<dyn Runtime>,
    pub clock: Arc<dyn Clock>,
    /// Volumes, mounted files and termination messages of pods; usually `/var/lib/pintle/kubelet`.
    pub root_dir: PathBuf,
    /// Usually `/var/log/pods`.
    pub log_dir: PathBuf,
    pub hardware: Hardware,
    /// The cgroup below which `kubepods` is made, from the root of each hierarchy; `/` is the root itself.
    pub cgroup_root: String,
    /// Whether cgroups of pods are made at all; without, pods have no parent cgroup and their containers no common limit.
    pub manage_cgroups: bool,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The machine's resolver configuration, for pods with `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    /// More labels for the Node object.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Node object when it is made.
    pub taints: Vec<Taint>,
    pub max_pods: u32,
    /// The kubelet's HTTPS API; none without.
    pub server: Option<ServerConfig>,
    /// Upgrades requests for exec, attach and port-forward.
    pub streaming: Arc<dyn Streaming>,
    /// Told the Node's `spec.podCIDRs` once they are known, and whenever they change.
    pub on_pod_cidrs: Option<Arc<dyn Fn(&[String]) + Send + Sync>>,
    /// How long the node's lease lasts, in seconds; it is renewed four times as often. Upstream's default is 40.
    pub lease_seconds: u32,
    pub options: Options,
    /// What the Node object says, such as `v1.36.2+pintle`.
    pub kubelet_version: String,
}

/// Where and how the kubelet's HTTPS API is served.
#[derive(Clone)]
pub struct ServerConfig {
    /// Usually port 10250.
    pub bind: SocketAddr,
    /// With client certificates optional, verified by the cluster's authority.
    pub tls: Arc<rustls::ServerConfig>,
}

/// Why the kubelet could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the container runtime does not answer: {0}")]
    Runtime(#[from] pintle_cri::CriError),
    #[error("cannot listen on {address} for the kubelet's API: {source}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("processors, memory and devices can't be given out: {0}")]
    Placement(#[from] pintle_placement::OpenError),
    #[error("cannot {action} {path:?}: {source}")]
    Directory {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}
