//! Starts the node half: engine, kubelet, service proxy and DNS, and joins them.

use crate::adapters::{BridgedSandboxes, StoredImages, Streams};
use crate::cluster::{Cluster, private_directory};
use crate::control_plane::ControlPlane;
use crate::credentials::Credentials;
use crate::{builtin, host};
use anyhow::{Context, Result};
use pintle_apiserver::User;
use pintle_clock::Clock;
use pintle_image::ImageStore;
use pintle_informer::Informers;
use pintle_network::BridgeNetwork;
use pintle_runtime::Engine;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a kubelet tells of itself.
const VERSION: &str = concat!("v1.36.2+pintle.", env!("CARGO_PKG_VERSION"));
/// Room that a packet between nodes may need for its envelope is kept free from the start.
const MTU: u32 = 1450;

/// This machine as a node: what runs containers here.
pub(crate) struct Node {
    pub(crate) images: Arc<ImageStore>,
    pub(crate) engine: Arc<Engine>,
}

impl Node {
    /// Opens images, network and engine, and takes over the containers of an earlier run. Needs no API server.
    pub(crate) async fn open(cluster: &Cluster, clock: Arc<dyn Clock>) -> Result<Self> {
        host::prepare()?;
        let images = open_images(cluster).await?;
        let network = open_network(cluster).await?;
        let shim = write_program(cluster, "pintle-shim", pintle_embedded::SHIM)?;
        let pause = write_program(cluster, "pintle-pause", pintle_embedded::PAUSE)?;
        let config = pintle_runtime::Config {
            state_dir: cluster.data("engine"),
            run_dir: cluster.run("engine"),
            shim_binary: shim,
            pause_binary: pause,
            images: Arc::new(StoredImages(Arc::clone(&images))),
            network: Arc::new(BridgedSandboxes(network)),
            cgroup_root: cluster.settings.cgroup_root(),
            clock,
        };
        let engine = Engine::open(config).await.context("open the container engine")?;
        Ok(Self { images, engine })
    }

    /// Starts kubelet, proxy and DNS.
    pub(crate) async fn start(
        &self,
        cluster: &Cluster,
        credentials: &Credentials,
        plane: &ControlPlane,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<()> {
        let proxy_client = plane.client(User::new("system:kube-proxy", &[]), "kube-proxy");
        // The proxy and DNS read the same services and endpoints.
        let informers = Informers::new(proxy_client.clone(), stop.clone());
        start_dns(cluster, &informers, tasks, stop).await?;
        let proxy = pintle_proxy::Config::new(informers, cluster.node_name.clone(), cluster.node_ip, cluster.pod_cidr.into());
        let proxying = pintle_proxy::run(proxy, stop.clone());
        tasks.spawn(async move {
            if let Err(error) = proxying.await {
                tracing::error!(%error, "the service proxy ended");
            }
        });
        let kubelet = self.kubelet(cluster, credentials, plane, clock, stop)?;
        let running = pintle_kubelet::run(kubelet, stop.clone());
        tasks.spawn(async move {
            if let Err(error) = running.await {
                tracing::error!(%error, "the kubelet ended");
            }
        });
        Ok(())
    }

    fn kubelet(
        &self,
        cluster: &Cluster,
        credentials: &Credentials,
        plane: &ControlPlane,
        clock: Arc<dyn Clock>,
        stop: &CancellationToken,
    ) -> Result<pintle_kubelet::Config> {
        let user = User::new(format!("system:node:{}", cluster.node_name), &["system:nodes"]);
        let client = plane.client(user, "kubelet");
        let authority = credentials.authority.certificate_pem();
        let clients = pintle_pki::ClientCertificates::Optional(authority);
        Ok(pintle_kubelet::Config {
            node_name: cluster.node_name.clone(),
            node_ip: cluster.node_ip,
            informers: Informers::new(client.clone(), stop.clone()),
            client,
            runtime: Arc::clone(&self.engine) as Arc<dyn pintle_cri::Runtime>,
            clock,
            root_dir: cluster.data("kubelet"),
            log_dir: cluster.settings.log_dir(),
            cgroup_root: cluster.settings.cgroup_root(),
            manage_cgroups: true,
            cluster_dns: vec![cluster.dns_ip],
            cluster_domain: cluster.settings.cluster_domain(),
            resolv_conf: "/etc/resolv.conf".into(),
            labels: cluster.node_labels.clone(),
            taints: Vec::new(),
            max_pods: cluster.settings.max_pods(),
            server: Some(pintle_kubelet::ServerConfig {
                bind: SocketAddr::new(cluster.settings.bind_address(), cluster.settings.kubelet_port()),
                tls: pintle_pki::server_config(&credentials.kubelet_server, clients)?,
            }),
            streaming: Arc::new(Streams),
            on_pod_cidrs: None,
            kubelet_version: VERSION.into(),
        })
    }
}

async fn open_images(cluster: &Cluster) -> Result<Arc<ImageStore>> {
    let directory = cluster.data("images");
    let opened = tokio::task::spawn_blocking(move || {
        private_directory(&directory)?;
        let images = ImageStore::open(directory)?;
        builtin::install(&images)?;
        anyhow::Ok(Arc::new(images))
    });
    opened.await?.context("open the image store")
}

async fn open_network(cluster: &Cluster) -> Result<Arc<BridgeNetwork>> {
    let config = network_config(cluster);
    let dns = cluster.dns_ip;
    let opened = tokio::task::spawn_blocking(move || {
        let bridge = config.bridge.clone();
        let network = BridgeNetwork::open(config)?;
        host::add_address(&bridge, dns)?;
        anyhow::Ok(Arc::new(network))
    });
    opened.await?.context("set up the pod network")
}

pub(crate) fn network_config(cluster: &Cluster) -> pintle_network::Config {
    pintle_network::Config {
        bridge: cluster.settings.bridge(),
        pod_subnet: cluster.node_subnet,
        cluster_subnets: vec![cluster.pod_cidr.into()],
        translated_subnets: vec![cluster.service_cidr.into()],
        state_dir: cluster.data("network"),
        mtu: MTU,
    }
}

/// The cluster's DNS answers on this node, at the address that every pod asks: no packet is translated for it.
async fn start_dns(
    cluster: &Cluster,
    informers: &Informers,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<()> {
    let config = pintle_dns::Config {
        addresses: vec![SocketAddr::new(cluster.dns_ip, 53)],
        domain: cluster.settings.cluster_domain(),
        upstreams: cluster.dns_upstreams.clone().map(|list| list.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect()),
        resolv_conf: "/etc/resolv.conf".into(),
        informers: informers.clone(),
    };
    let dns = pintle_dns::Dns::bind(config).await?;
    let serving = dns.serve(stop.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the DNS server ended");
        }
    });
    Ok(())
}

/// Writes one of the programs that pintle brings with it into the run directory, under a name of its content: a
/// running one is never overwritten.
fn write_program(cluster: &Cluster, name: &str, content: &[u8]) -> Result<std::path::PathBuf> {
    use std::hash::{Hash, Hasher};
    use std::os::unix::fs::PermissionsExt;
    let directory = cluster.run("bin");
    private_directory(&directory)?;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    content.hash(&mut hasher);
    let path = directory.join(format!("{name}-{:016x}", hasher.finish()));
    if !path.exists() {
        let temporary = path.with_extension("new");
        let write = || {
            std::fs::write(&temporary, content)?;
            std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o700))?;
            std::fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("write {}", path.display()))?;
    }
    Ok(path)
}
