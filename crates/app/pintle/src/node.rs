//! Starts the node half: engine, kubelet, service proxy and DNS, and joins them.

use crate::adapters::{BridgedSandboxes, PluggedSandboxes, StoredImages, Streams};
use crate::cluster::{self, Cluster, private_directory};
use crate::identity::NodeIdentity;
use crate::pod_network::PodNetwork;
use crate::{builtin, cri, host};
use anyhow::{Context, Result};
use pintle_clock::Clock;
use pintle_dns::Upstreams;
use pintle_image::ImageStore;
use pintle_informer::Informers;
use pintle_netlink::nft::Family;
use pintle_runtime::{Engine, SandboxNetwork};
use pintle_types::ObjectKey;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a kubelet tells of itself.
const VERSION: &str = concat!("v1.36.2+pintle.", env!("CARGO_PKG_VERSION"));
/// Where device plugins look for the kubelet's sockets.
const KUBELET_DIR: &str = "/var/lib/kubelet";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
const DNS_METRICS_PORT: u16 = 9153;
/// How long clients keep an answer about the cluster, as with kubeadm's CoreDNS.
const DNS_TTL_SECONDS: u32 = 30;

/// This machine as a node: what runs containers here.
pub(crate) struct Node {
    pub(crate) engine: Arc<Engine>,
    pub(crate) docker: Arc<pintle_docker::Daemon>,
    network: Arc<PodNetwork>,
}

impl Node {
    /// Opens images, network and engine, and takes over the containers of an earlier run. Needs no API server.
    pub(crate) async fn open(cluster: &Cluster, clock: Arc<dyn Clock>) -> Result<Self> {
        host::prepare()?;
        let images = open_images(cluster).await?;
        let settings = cluster.clone();
        let network = tokio::task::spawn_blocking(move || PodNetwork::start(&settings)).await??;
        let sandboxes = pod_sandboxes(cluster, &network)?;
        let engine = open_engine(cluster, &images, sandboxes, Arc::clone(&clock)).await?;
        let docker = open_docker(cluster, &images, &engine, clock).await?;
        Ok(Self { engine, docker, network })
    }

    /// Starts kubelet, proxy, DNS, and what leads to pods of other nodes.
    pub(crate) fn start(
        &self,
        cluster: &Cluster,
        identity: &NodeIdentity,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<()> {
        // The proxy and DNS read the same services and endpoints.
        let informers = Informers::new(identity.proxy.clone(), stop.clone());
        tasks.spawn(serve_dns(cluster.clone(), Arc::clone(&self.network), informers.clone(), &*clock, stop.clone()));
        let following =
            Arc::clone(&self.network).follow_nodes(informers.clone(), identity.kubelet.clone(), stop.clone());
        tasks.spawn(following);
        let proxy = pintle_proxy::Config {
            node_name: cluster.node_name.clone(),
            zone: None,
            pod_subnets: cluster.pod_ranges.clone(),
            service_subnets: cluster.service_ranges.clone(),
        };
        if let Some(servers) = &identity.servers {
            tasks.spawn(Arc::clone(servers).follow(informers.clone(), stop.clone()));
        }
        let proxying = pintle_proxy::run(proxy, informers, stop.clone());
        tasks.spawn(async move {
            if let Err(error) = proxying.await {
                tracing::error!(%error, "the service proxy ended");
            }
        });
        let families = cluster.pod_ranges.iter().map(|range| Family::of(range.addr())).collect();
        let config = pintle_policy::Config { node_name: cluster.node_name.clone(), families };
        let policies = pintle_policy::Policies::open(config, identity.proxy.clone(), self.network.guard.clone())?;
        let guarding = policies.run(stop.clone());
        tasks.spawn(async move {
            if let Err(error) = guarding.await {
                tracing::error!(%error, "network policies are not followed any more");
            }
        });
        tasks.spawn(cri::bind(cluster)?.serve(Arc::clone(&self.engine) as _, stop.clone()));
        let kubelet = self.kubelet(cluster, identity, clock, stop)?;
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
        identity: &NodeIdentity,
        clock: Arc<dyn Clock>,
        stop: &CancellationToken,
    ) -> Result<pintle_kubelet::Config> {
        let client = identity.kubelet.clone();
        let clients = pintle_pki::ClientCertificates::Optional(&identity.authority_pem);
        let network = Arc::clone(&self.network);
        Ok(pintle_kubelet::Config {
            node_name: cluster.node_name.clone(),
            node_ips: cluster.node_ips.clone(),
            informers: Informers::new(client.clone(), stop.clone()),
            client,
            runtime: cri::runtime(cluster, &self.engine)?,
            clock,
            root_dir: cluster.data("kubelet"),
            log_dir: cluster.settings.log_dir(),
            hardware: pintle_kubelet::Hardware::Real,
            cgroup_root: cluster.settings.cgroup_root(),
            manage_cgroups: true,
            cluster_dns: vec![cluster.dns_ip],
            cluster_domain: cluster.settings.cluster_domain(),
            resolv_conf: RESOLV_CONF.into(),
            labels: cluster.node_labels.clone(),
            taints: Vec::new(),
            max_pods: cluster.settings.max_pods(),
            server: Some(pintle_kubelet::ServerConfig {
                bind: SocketAddr::new(cluster.settings.bind_address(), cluster.settings.kubelet_port()),
                tls: pintle_pki::server_config_live(&identity.serving, clients)?,
            }),
            streaming: Arc::new(Streams),
            // The bridge is there before the node says that it is ready.
            on_pod_cidrs: Some(Arc::new(move |cidrs: &[String]| {
                tokio::task::block_in_place(|| network.assign_told(cidrs));
            })),
            lease_seconds: cluster.settings.node_lease_duration_seconds(),
            options: kubelet_options(cluster)?,
            kubelet_version: VERSION.into(),
        })
    }
}

/// Plugins look for the kubelet there; a cluster with a data directory of its own is not the machine's only one.
pub(crate) fn device_plugins(cluster: &Cluster) -> std::path::PathBuf {
    let settings = &cluster.settings;
    let usual = settings.data_dir() == pintle_cli::Settings::default().data_dir();
    let default = || match usual {
        true => std::path::PathBuf::from(KUBELET_DIR),
        false => cluster.data("kubelet"),
    };
    settings.device_plugin_dir.clone().unwrap_or_else(|| default().join("device-plugins"))
}

/// How processors and memory are given out, as upstream's flags have it.
fn placement_options(settings: &pintle_cli::Settings) -> Result<pintle_placement::Options> {
    use pintle_placement::{CpuOptions, Options, Reserved};
    let amount = |text: &str| text.parse::<pintle_types::quantity::Quantity>().ok().map(|quantity| quantity.milli());
    let text = |setting: &Option<String>| setting.clone().unwrap_or_default();
    let reserved = |setting, flag| Reserved::parse(&text(setting), amount).context(flag);
    let cpu = CpuOptions::parse(&text(&settings.cpu_manager_policy), &text(&settings.cpu_manager_policy_options));
    let reserved_cpus = settings.reserved_cpus.as_deref().map(str::parse).transpose();
    Ok(Options {
        cpu: cpu.context("--cpu-manager-policy")?,
        reserved_cpus: reserved_cpus.context("--reserved-cpus")?,
        reserved: reserved(&settings.kube_reserved, "--kube-reserved")?
            .and(reserved(&settings.system_reserved, "--system-reserved")?),
        memory: Options::memory_policy(&text(&settings.memory_manager_policy)).context("--memory-manager-policy")?,
        reserved_memory: Options::memory_of_nodes(&text(&settings.reserved_memory), amount)
            .context("--reserved-memory")?,
        topology: text(&settings.topology_manager_policy).parse().context("--topology-manager-policy")?,
        scope: text(&settings.topology_manager_scope).parse().context("--topology-manager-scope")?,
    })
}

fn credential_providers(settings: &pintle_cli::Settings) -> Result<Option<Arc<pintle_kubelet::CredentialProviders>>> {
    let (config, programs) = (&settings.image_credential_provider_config, &settings.image_credential_provider_bin_dir);
    match (config, programs) {
        (None, None) => Ok(None),
        (Some(config), Some(programs)) => {
            let opened = pintle_kubelet::CredentialProviders::open(config, programs);
            Ok(Some(Arc::new(opened.context("--image-credential-provider-config")?)))
        }
        _ => {
            anyhow::bail!("--image-credential-provider-config and --image-credential-provider-bin-dir need each other")
        }
    }
}

fn max_restart_period(settings: &pintle_cli::Settings) -> Result<pintle_kubelet::MaxRestartPeriod> {
    const FLAG: &str = "max-container-restart-period";
    let period = cluster::duration(FLAG, &settings.max_container_restart_period())?;
    pintle_kubelet::MaxRestartPeriod::new(period).with_context(|| format!("--{FLAG}"))
}

/// What pods get of the time before the machine ends, as upstream's configuration has it.
fn shutdown_options(settings: &pintle_cli::Settings) -> Result<pintle_kubelet::ShutdownOptions> {
    let grace = cluster::duration("shutdown-grace-period", &settings.shutdown_grace_period())?;
    let critical =
        cluster::duration("shutdown-grace-period-critical-pods", &settings.shutdown_grace_period_critical_pods())?;
    let by_priority = settings.shutdown_grace_period_by_pod_priority.as_deref().unwrap_or_default();
    pintle_kubelet::ShutdownOptions::new(grace, critical, by_priority).context("--shutdown-grace-period…")
}

/// The system bus is where the environment says, as for all who use it.
fn shutdown_paths() -> pintle_kubelet::ShutdownPaths {
    let usual = pintle_kubelet::ShutdownPaths::default();
    let told = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok();
    let path = told.as_deref().and_then(|address| address.strip_prefix("unix:path=")?.split([',', ';']).next());
    pintle_kubelet::ShutdownPaths { bus: path.map_or(usual.bus, PathBuf::from), ..usual }
}

/// What must be left of a machine that a person works on, where a tenth of a well filled disk is nothing to go by.
pub(crate) const EVICTION_ON_DESKS: &str =
    "memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<1%,imagefs.available<1Gi,imagefs.inodesFree<1%";

fn kubelet_options(cluster: &Cluster) -> Result<pintle_kubelet::Options> {
    let settings = &cluster.settings;
    let defaults = pintle_kubelet::Options::default();
    let sysctls = settings.allowed_unsafe_sysctls.as_deref().unwrap_or_default();
    let options = pintle_kubelet::Options {
        static_pods: settings.pod_manifest_path.clone(),
        images: pintle_kubelet::ImageLimits {
            high_percent: settings.image_gc_high_threshold(),
            low_percent: settings.image_gc_low_threshold(),
            ..defaults.images
        },
        eviction_max_pod_grace: Duration::from_secs(settings.eviction_max_pod_grace_period().into()),
        max_restart_period: max_restart_period(settings)?,
        placement: placement_options(settings)?,
        device_plugins: Some(device_plugins(cluster)),
        shutdown: shutdown_options(settings)?,
        shutdown_paths: shutdown_paths(),
        credential_providers: credential_providers(settings)?,
        unsafe_sysctls: sysctls.split(',').filter(|s| !s.is_empty()).map(|s| s.trim().to_owned()).collect(),
        ..defaults
    };
    let flags = pintle_kubelet::EvictionFlags {
        hard: settings.eviction_hard.as_deref(),
        soft: settings.eviction_soft.as_deref(),
        soft_grace_period: settings.eviction_soft_grace_period.as_deref(),
        minimum_reclaim: settings.eviction_minimum_reclaim.as_deref(),
        duration: pintle_auth::configuration::duration,
    };
    options.evict(flags).context("the thresholds of eviction (--eviction-…)")
}

/// What connects pods: the bridge, or the plugins of a CNI configuration.
pub(crate) fn pod_sandboxes(cluster: &Cluster, network: &Arc<PodNetwork>) -> Result<Arc<dyn SandboxNetwork>> {
    let Some(configurations) = cluster.settings.cni_conf_dir.clone() else {
        return Ok(Arc::new(BridgedSandboxes(Arc::clone(network))));
    };
    let plugins = cluster.settings.cni_bin_dir();
    let config = pintle_network::CniConfig {
        configurations,
        plugins: std::env::split_paths(&plugins).collect(),
        state_dir: cluster.data("cni"),
    };
    let plugins = Arc::new(pintle_network::CniNetwork::open(config)?);
    Ok(Arc::new(PluggedSandboxes { plugins, guard: network.guard.clone() }))
}

/// Takes over the containers of an earlier run.
pub(crate) async fn open_engine(
    cluster: &Cluster,
    images: &Arc<ImageStore>,
    network: Arc<dyn SandboxNetwork>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Engine>> {
    let config = pintle_runtime::Config {
        state_dir: cluster.data("engine"),
        run_dir: cluster.run("engine"),
        shim_binary: write_guest(cluster, "pintle-shim", pintle_embedded::SHIM, 0o700)?,
        init_binary: write_guest(cluster, "docker-init", pintle_embedded::PAUSE, 0o555)?,
        cgroup_root: cluster.settings.cgroup_root(),
        seccomp_dir: cluster.data("kubelet/seccomp"),
    };
    let images = Arc::new(StoredImages::new(Arc::clone(images), cluster.registries.clone()));
    let opened = Engine::open(config, images, network, clock).await;
    opened.context("open the container engine")
}

/// Docker's containers, networks and volumes, on the same engine and images.
pub(crate) async fn open_docker(
    cluster: &Cluster,
    images: &Arc<ImageStore>,
    engine: &Arc<Engine>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<pintle_docker::Daemon>> {
    let config = pintle_docker::Config {
        data_dir: cluster.data("docker"),
        run_dir: cluster.run("docker"),
        cgroup_parent: format!("{}/docker", cluster.settings.cgroup_root().trim_end_matches('/')),
        bridge: cluster.settings.docker_bridge(),
        live_restore: cluster.settings.on_exit() == pintle_cli::OnExit::Keep,
    };
    let opened = pintle_docker::Daemon::open(config, Arc::clone(images), Arc::clone(engine), clock).await;
    opened.context("open what the docker command works on")
}

pub(crate) async fn open_images(cluster: &Cluster) -> Result<Arc<ImageStore>> {
    let directory = cluster.data("images");
    let opened = tokio::task::spawn_blocking(move || {
        private_directory(&directory)?;
        let images = ImageStore::open(directory)?;
        builtin::install(&images)?;
        anyhow::Ok(Arc::new(images))
    });
    opened.await?.context("open the image store")
}

/// The cluster's DNS answers on this node, at the address that every pod asks: no packet is translated for it. The
/// address is one of the bridge's.
fn serve_dns(
    cluster: Cluster,
    network: Arc<PodNetwork>,
    informers: Informers,
    clock: &dyn Clock,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let config = dns_config(&cluster, clock);
    async move {
        if stop.run_until_cancelled(network.opened()).await.is_none() {
            return;
        }
        match pintle_dns::Dns::bind(config).await {
            Ok(dns) => dns.serve(&informers, stop).await,
            Err(error) => tracing::error!(%error, "names of the cluster can't be answered"),
        }
    }
}

fn dns_config(cluster: &Cluster, clock: &dyn Clock) -> pintle_dns::Config {
    let upstreams = match &cluster.dns_upstreams {
        Some(list) => Upstreams::Fixed(list.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect()),
        None => Upstreams::File(RESOLV_CONF.into()),
    };
    pintle_dns::Config {
        addresses: vec![SocketAddr::new(cluster.dns_ip, DNS_PORT)],
        domain: cluster.settings.cluster_domain(),
        upstreams,
        ttl: DNS_TTL_SECONDS,
        settings: Some(ObjectKey::new("kube-system", "kube-dns")),
        metrics: Some(SocketAddr::new(cluster.dns_ip, DNS_METRICS_PORT)),
        serial: u32::try_from(clock.now().as_second()).unwrap_or(1),
    }
}

/// Writes a program that pintle brings with it into the run directory, under a name of its content: one that may be in
/// use is never overwritten.
fn write_guest(cluster: &Cluster, name: &str, program: &[u8], mode: u32) -> Result<PathBuf> {
    use std::hash::{Hash, Hasher};
    use std::os::unix::fs::PermissionsExt;
    let directory = cluster.run("bin");
    private_directory(&directory)?;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    program.hash(&mut hasher);
    let path = directory.join(format!("{name}-{:016x}", hasher.finish()));
    if !path.exists() {
        let temporary = path.with_extension("new");
        let write = || {
            std::fs::write(&temporary, program)?;
            std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode))?;
            std::fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("write {}", path.display()))?;
    }
    Ok(path)
}
