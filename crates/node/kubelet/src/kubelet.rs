//! Starts the parts of a kubelet and ends with them.

use crate::api::ClientApi;
use crate::cgroups::{Cgroups, Managed, Unmanaged};
use crate::config::{Config, Error};
use crate::ending::Order;
use crate::eviction::Evictor;
use crate::eviction::pressure::Pressures;
use crate::host::{Host, RuntimeFacts, Settings};
use crate::image_gc::{ImageCollector, PulledImages};
use crate::measured::Measured;
use crate::measures::Measures;
use crate::node::machine::Machine;
use crate::plugins::Plugins;
use crate::pods::Pods;
use crate::resize::Allocations;
use crate::shutdown::{MachineEnd, Shutdown};
use crate::static_pods::{Mirrors, Source};
use crate::stats::Collector;
use crate::user_namespaces::UserNamespaces;
use crate::{node, placement, server};
use pintle_informer::{Informer, Recorder, Selector};
use pintle_placement::{Layout, Placement};
use pintle_types::k8s::api::core::v1::{Pod, Service};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs the kubelet until `stop`. Containers go on running after it.
pub async fn run(mut config: Config, stop: CancellationToken) -> Result<(), Error> {
    let measures = Arc::new(Measures::default());
    config.runtime = Arc::new(Measured::new(config.runtime, Arc::clone(&measures)));
    let version = config.runtime.version().await?;
    let handlers = config.runtime.status().await?.handlers;
    let recursive_read_only = handlers.iter().any(|usual| usual.name.is_empty() && usual.recursive_read_only_mounts);
    let facts = RuntimeFacts { name: version.runtime_name.clone(), recursive_read_only };
    let machine = config.hardware.machine();
    let pods = config.informers.selected::<Pod>(Selector::fields(format!("spec.nodeName={}", config.node_name)));
    let services = config.informers.of::<Service>();
    let recorder = Recorder::with_clock(config.client.clone(), "kubelet", &config.node_name, Arc::clone(&config.clock));
    let settings = settings(&config, &machine, facts);
    let host = Arc::new(Host {
        runtime: Arc::clone(&config.runtime),
        api: Arc::new(ClientApi::new(config.client.clone(), services.clone())),
        events: Arc::new(recorder.clone()),
        clock: Arc::clone(&config.clock),
        mounter: config.hardware.mounter(),
        hardware: config.hardware.clone(),
        cgroups: cgroups(&config, &machine),
        probes: Default::default(),
        claimed: Default::default(),
        measures,
        allocations: Allocations::new(settings.allocatable_milli_cpu, settings.allocatable_memory),
        pressures: Pressures::new(config.options.pressure_transition),
        ending: MachineEnd::default(),
        pulled: PulledImages::new(&config.root_dir),
        user_namespaces: UserNamespaces::new(config.root_dir.join("pods")),
        placement: Arc::new(open_placement(&config, &machine)?),
        credential_providers: config.options.credential_providers.clone(),
        settings,
    });
    for dir in [&config.root_dir, &config.log_dir] {
        make_directory(dir)?;
    }
    let listener = match &config.server {
        Some(server) => Some(server::bind(server.bind).await?),
        None => None,
    };
    let mut tasks = JoinSet::new();
    serve_placement(&config, &host, &pods, &mut tasks, &stop);
    let mirrors = Mirrors::new(config.client.clone(), config.node_name.clone(), pods.clone());
    let stats = Arc::new(Collector::new(Arc::clone(&host)));
    let orders = look_after(&config, &host, &pods, &stats, &recorder, &mut tasks, &stop);
    if let (Some(listener), Some(settings)) = (listener, &config.server) {
        let state = server::State::new(&config, Arc::clone(&host), pods.clone(), Arc::clone(&mirrors), stats);
        tasks.spawn(server::serve(listener, Arc::clone(&settings.tls), Arc::new(state), stop.clone()));
    }
    tasks.spawn(node::run(config.clone(), Arc::clone(&host), machine, version, recorder, stop.clone()));
    let (told, statics) = mpsc::unbounded_channel();
    tasks.spawn(Arc::clone(&mirrors).run(stop.clone()));
    let clock = Arc::clone(&config.clock);
    let source = config.options.static_pods.clone().map(|path| Source::new(path, config.node_name.clone(), clock));
    if let Some(path) = &config.options.static_pods
        && !path.exists()
    {
        make_directory(path)?;
    }
    let work = async {
        let follow = async {
            match source {
                // The receiver is only gone when the kubelet stops.
                Some(source) => source.follow(move |pods| drop(told.send(pods))).await,
                // What an earlier run had of them is no longer wanted.
                None => drop(told.send(Vec::new())),
            }
        };
        let mut all = Pods::new(host, pods, services, mirrors, statics, orders);
        all.max_pods = usize::try_from(config.max_pods).unwrap_or(usize::MAX);
        all.unsafe_sysctls = config.options.unsafe_sysctls.clone();
        tokio::join!(follow, all.run());
    };
    // Ends with `stop` only; the actors are dropped then and their containers run on.
    let _ended = stop.run_until_cancelled(work).await;
    tasks.join_all().await;
    Ok(())
}

/// Starts eviction, the deletion of unused images, and what waits for the end of the machine; returns what they order.
fn look_after(
    config: &Config,
    host: &Arc<Host>,
    pods: &Informer<Pod>,
    stats: &Arc<Collector>,
    recorder: &Recorder,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> mpsc::UnboundedReceiver<Order> {
    let images = Arc::new(ImageCollector::new(Arc::clone(host), config.options.images));
    tasks.spawn(Arc::clone(&images).run(recorder.clone(), stop.clone()));
    let (orders, ordered) = mpsc::unbounded_channel();
    let evictor = Evictor {
        host: Arc::clone(host),
        pods: pods.clone(),
        stats: Arc::clone(stats),
        images,
        recorder: recorder.clone(),
        thresholds: config.options.evictions.clone(),
        max_pod_grace: config.options.eviction_max_pod_grace,
        orders: orders.clone(),
    };
    tasks.spawn(evictor.run(stop.clone()));
    let periods = config.options.shutdown.periods();
    if !periods.is_empty() && config.hardware.is_real() {
        let (host, recorder, paths) = (Arc::clone(host), recorder.clone(), config.options.shutdown_paths.clone());
        tasks.spawn(Shutdown { host, recorder, periods, paths, orders }.run(stop.clone()));
    }
    ordered
}

fn open_placement(config: &Config, machine: &Machine) -> Result<Placement, Error> {
    let layout = || Layout::read(Path::new("/sys/devices/system"), machine.memory_bytes);
    Ok(Placement::open(&config.options.placement, layout, &config.root_dir)?)
}

/// Opens the sockets on which device plugins register and monitors ask. A node goes without those it can't have.
fn serve_placement(
    config: &Config,
    host: &Arc<Host>,
    pods: &Informer<Pod>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) {
    let Some(folder) = &config.options.device_plugins else { return };
    match host.placement.serve_plugins(folder, stop.clone()) {
        Ok(serving) => drop(tasks.spawn(serving)),
        Err(error) => tracing::warn!(%error, ?folder, "device plugins can't register (--device-plugin-dir)"),
    }
    let plugins = Plugins::new(Arc::clone(&host.placement), folder.with_file_name("plugins_registry"));
    tasks.spawn(plugins.run(stop.clone()));
    let folder = folder.with_file_name("pod-resources");
    let pods = pods.clone();
    let names = move || pods.list().iter().filter_map(|pod| placement::names(pod)).collect();
    match host.placement.serve_pod_resources(&folder, names, stop.clone()) {
        Ok(serving) => drop(tasks.spawn(serving)),
        Err(error) => tracing::warn!(%error, ?folder, "nobody can ask which pods have which devices"),
    }
}

fn make_directory(dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|source| Error::Directory { action: "make", path: dir.to_owned(), source })
}

fn cgroups(config: &Config, machine: &Machine) -> Arc<dyn Cgroups> {
    if !config.manage_cgroups || !config.hardware.is_real() {
        return Arc::new(Unmanaged);
    }
    match Managed::new(&config.cgroup_root, machine) {
        Ok(managed) => Arc::new(managed),
        Err(error) => {
            tracing::warn!(error, "cgroups of pods can't be managed on this machine; only containers have limits");
            Arc::new(Unmanaged)
        }
    }
}

fn settings(config: &Config, machine: &Machine, runtime: RuntimeFacts) -> Settings {
    let reserved = config.options.placement.reserved;
    let machine_milli_cpu = u64::from(machine.processors) * 1000;
    Settings {
        node_name: config.node_name.clone(),
        node_ips: config.node_ips.iter().map(std::net::IpAddr::to_string).collect(),
        runtime,
        root_dir: config.root_dir.clone(),
        log_dir: config.log_dir.clone(),
        cluster_dns: config.cluster_dns.clone(),
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        machine_memory: machine.memory_bytes,
        machine_milli_cpu,
        huge_pages: machine.huge_pages.clone(),
        allocatable_memory: machine.plain_memory_bytes().saturating_sub(reserved.memory_bytes),
        allocatable_milli_cpu: machine_milli_cpu.saturating_sub(reserved.milli_cpu),
        max_restart_period: config.options.max_restart_period,
    }
}
