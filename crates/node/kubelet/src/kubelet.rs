//! The one loop of the kubelet: pods that come, change and go; events of the runtime; a slow look at everything.

use crate::actor::{Actor, Wanted};
use crate::api::ClientApi;
use crate::cgroups::{Cgroups, Managed, Unmanaged};
use crate::config::{Config, Error};
use crate::eviction::pressure::Pressures;
use crate::eviction::{Evictor, Order, Slot};
use crate::host::{Host, RuntimeFacts, Settings};
use crate::image_gc::{ImageCollector, PulledImages};
use crate::node::machine::Machine;
use crate::resize::Allocations;
use crate::static_pods::{Mirrors, Source, is_mirror, is_static};
use crate::stats::Collector;
use crate::status::{Ended, is_final};
use crate::user_namespaces::UserNamespaces;
use crate::{admission, node, placement, purge, server};
use futures::{FutureExt, StreamExt};
use pintle_cri::{EventStream, RuntimeEvent};
use pintle_informer::{Change, Informer, Recorder, Selector};
use pintle_placement::{Layout, Placement};
use pintle_types::k8s::api::core::v1::{Pod, Service};
use pintle_types::{Kind, ObjectKey};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// Only a safety: everything is driven by events.
const RELIST: Duration = Duration::from_secs(300);
/// Between attempts to have the runtime's events.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

/// Runs the kubelet until `stop`. Containers go on running after it.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let version = config.runtime.version().await?;
    let handlers = config.runtime.status().await?.handlers;
    let recursive_read_only = handlers.iter().any(|usual| usual.name.is_empty() && usual.recursive_read_only_mounts);
    let facts = RuntimeFacts { name: version.runtime_name.clone(), recursive_read_only };
    let machine = config.hardware.machine();
    let pods = config.informers.selected::<Pod>(Selector::fields(format!("spec.nodeName={}", config.node_name)));
    let services = config.informers.of::<Service>();
    let recorder = Recorder::with_clock(config.client.clone(), "kubelet", &config.node_name, Arc::clone(&config.clock));
    let host = Arc::new(Host {
        runtime: Arc::clone(&config.runtime),
        api: Arc::new(ClientApi::new(config.client.clone(), services.clone())),
        events: Arc::new(recorder.clone()),
        clock: Arc::clone(&config.clock),
        mounter: config.hardware.mounter(),
        hardware: config.hardware.clone(),
        cgroups: cgroups(&config, &machine),
        probes: Default::default(),
        allocations: Allocations::new(u64::from(machine.processors) * 1000, machine.memory_bytes),
        pressures: Pressures::new(config.options.pressure_transition),
        pulled: PulledImages::new(&config.root_dir),
        user_namespaces: UserNamespaces::new(config.root_dir.join("pods")),
        placement: Arc::new(open_placement(&config, &machine)?),
        credential_providers: config.options.credential_providers.clone(),
        settings: settings(&config, &machine, facts),
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

/// Starts eviction and the deletion of unused images; returns the evictions that they order.
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
        orders,
    };
    tasks.spawn(evictor.run(stop.clone()));
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
    match Managed::new(&config.cgroup_root, u64::from(machine.processors) * 1000, machine.memory_bytes) {
        Ok(managed) => Arc::new(managed),
        Err(error) => {
            tracing::warn!(error, "cgroups of pods can't be managed on this machine; only containers have limits");
            Arc::new(Unmanaged)
        }
    }
}

fn settings(config: &Config, machine: &Machine, runtime: RuntimeFacts) -> Settings {
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
        machine_milli_cpu: u64::from(machine.processors) * 1000,
    }
}

/// One pod's actor, as the loop knows it.
struct Handle {
    key: ObjectKey,
    eviction: Slot,
    is_static: bool,
    wanted: watch::Sender<Wanted>,
    wake: Arc<Notify>,
}

/// The pods of this node, and their actors.
pub struct Pods {
    host: Arc<Host>,
    informer: Informer<Pod>,
    services: Informer<Service>,
    mirrors: Arc<Mirrors>,
    /// Told by the files of static pods, whenever they change.
    told: mpsc::UnboundedReceiver<Vec<Arc<Pod>>>,
    statics: HashMap<ObjectKey, Arc<Pod>>,
    orders: mpsc::UnboundedReceiver<Order>,
    max_pods: usize,
    unsafe_sysctls: Vec<String>,
    handles: HashMap<String, Handle>,
    actors: JoinSet<String>,
    /// Uids of pods whose end was told and whose objects are still there: others hold them by finalizers. What the watch
    /// still says of them may be older than their end.
    over: HashSet<String>,
    /// Uids of pods that vanished and are being cleaned away.
    orphans: HashSet<String>,
    cleaning: JoinSet<String>,
}

impl Pods {
    pub fn new(
        host: Arc<Host>,
        informer: Informer<Pod>,
        services: Informer<Service>,
        mirrors: Arc<Mirrors>,
        told: mpsc::UnboundedReceiver<Vec<Arc<Pod>>>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            host,
            informer,
            services,
            mirrors,
            told,
            statics: HashMap::new(),
            orders,
            max_pods: usize::MAX,
            unsafe_sysctls: Vec::new(),
            handles: HashMap::new(),
            actors: JoinSet::new(),
            over: HashSet::new(),
            orphans: HashSet::new(),
            cleaning: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        // The runtime's events are had before anything is started, so that none is missed.
        let mut events = events(&self.host).await;
        let (sender, mut changes) = mpsc::unbounded_channel();
        // flow: pod 8/16
        self.informer.on_change(move |change| {
            let change = match change {
                Change::Added(pod) => (None, Some(Arc::clone(pod))),
                Change::Modified(old, new) => (Some(Arc::clone(old)), Some(Arc::clone(new))),
                Change::Deleted(pod) => (Some(Arc::clone(pod)), None),
            };
            // The receiver is only gone when the kubelet stops.
            let _ = sender.send(change);
        });
        if let Some(pods) = self.told.recv().await {
            self.take_statics(pods);
        }
        // Containers of pods of the API learn of all services; static pods wait for nobody.
        let (pods, services) = (self.informer.clone(), self.services.clone());
        let mut synced = Box::pin(async move {
            tokio::join!(services.synced(), pods.synced());
        });
        let mut is_synced = false;
        let mut relist = interval_at(tokio::time::Instant::now() + RELIST, RELIST);
        relist.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut synced, if !is_synced => {
                    is_synced = true;
                    while let Some(Some((old, new))) = changes.recv().now_or_never() {
                        self.change(old, new);
                    }
                    self.clean_orphans().await;
                }
                Some((old, new)) = changes.recv(), if is_synced => self.change(old, new),
                Some(pods) = self.told.recv() => self.take_statics(pods),
                Some(order) = self.orders.recv() => self.evict(order),
                event = events.next() => match event {
                    Some(event) => self.runtime_event(&event),
                    None => {
                        events = self::events(&self.host).await;
                        self.wake_all();
                    }
                },
                Some(ended) = self.actors.join_next() => self.actor_ended(ended),
                Some(cleaned) = self.cleaning.join_next() => {
                    if let Ok(uid) = cleaned {
                        self.orphans.remove(&uid);
                    }
                }
                _ = relist.tick(), if is_synced => {
                    self.wake_all();
                    self.clean_orphans().await;
                }
            }
        }
    }

    /// Takes the static pods that there are to be: those that are no longer among them are stopped.
    fn take_statics(&mut self, pods: Vec<Arc<Pod>>) {
        self.statics = pods.into_iter().filter(|pod| Host::is_safe_uid(pod)).map(|pod| (key(&pod), pod)).collect();
        for (uid, handle) in self.handles.iter().filter(|(_, handle)| handle.is_static) {
            if self.statics.get(&handle.key).is_none_or(|pod| pod.uid() != uid) {
                handle.wanted.send_replace(Wanted::Gone);
            }
        }
        self.mirrors.want(&self.statics);
        self.start_statics();
    }

    /// Starts static pods that do not run; one that replaces another waits for its end.
    fn start_statics(&mut self) {
        let busy: HashSet<&ObjectKey> = self.handles.values().filter(|h| h.is_static).map(|h| &h.key).collect();
        let free: Vec<_> = self.statics.iter().filter(|(key, _)| !busy.contains(key)).collect();
        let free: Vec<_> = free.into_iter().map(|(_, pod)| Arc::clone(pod)).collect();
        for pod in free {
            self.mirrors.running(&key(&pod), true);
            self.present(pod);
        }
    }

    /// A mirror came, changed or went: its static pod's actor reports to it.
    fn mirror_changed(&mut self, key: &ObjectKey, mirror: Option<Arc<Pod>>) {
        if let Some(pod) = self.statics.get(key)
            && let Some(handle) = self.handles.get(pod.uid())
        {
            handle.wanted.send_replace(Wanted::Static { pod: Arc::clone(pod), mirror });
        }
        self.mirrors.look_at(key.clone());
    }

    /// What an actor is told of its pod.
    fn wanted(&self, pod: Arc<Pod>) -> Wanted {
        if !is_static(&pod) {
            return Wanted::Present(pod);
        }
        let mirror = self.informer.get(&key(&pod)).filter(|mirror| is_mirror(mirror));
        Wanted::Static { pod, mirror }
    }

    fn change(&mut self, old: Option<Arc<Pod>>, new: Option<Arc<Pod>>) {
        if let Some(pod) = new.as_ref().or(old.as_ref())
            && (is_mirror(pod) || self.statics.contains_key(&key(pod)))
        {
            let key = key(pod);
            self.mirror_changed(&key, new.filter(|pod| is_mirror(pod)));
            return;
        }
        let replaced = |old: &Arc<Pod>| new.as_ref().is_none_or(|new| new.uid() != old.uid());
        if let Some(old) = old.filter(replaced) {
            self.over.remove(old.uid());
            if let Some(handle) = self.handles.get(old.uid()) {
                handle.wanted.send_replace(Wanted::Gone);
            }
        }
        if let Some(pod) = new {
            self.present(pod);
        }
    }

    fn present(&mut self, pod: Arc<Pod>) {
        if !Host::is_safe_uid(&pod) {
            tracing::warn!(pod = crate::reference::pod_text(&pod), "a pod whose uid is no plain name is ignored");
            return;
        }
        if let Some(handle) = self.handles.get(pod.uid()) {
            handle.wanted.send_replace(self.wanted(pod));
            return;
        }
        if self.over.contains(pod.uid()) {
            return;
        }
        let uid = pod.uid().to_owned();
        let (wanted, inbox) = watch::channel(self.wanted(Arc::clone(&pod)));
        let wake = Arc::new(Notify::new());
        let (key, is_static) = (key(&pod), is_static(&pod));
        let (eviction, refused) = (Slot::default(), self.refusal(&pod));
        let actor = Actor::new(Arc::clone(&self.host), pod, inbox, Arc::clone(&wake));
        let actor = actor.admitted(Arc::clone(&eviction), refused);
        self.handles.insert(uid.clone(), Handle { key, eviction, is_static, wanted, wake });
        self.actors.spawn(actor.run().map(move |()| uid));
    }

    /// Why this node does not take a pod that is new here.
    fn refusal(&self, pod: &Pod) -> Option<Ended> {
        if is_static(pod) || !admission::is_new(pod) {
            return None;
        }
        let pods = self.informer.list();
        let ended = |other: &Pod| is_final(other.status.as_ref().and_then(|s| s.phase.as_deref()));
        // Those that came later wait for their own turn.
        let here = |other: &&Pod| other.uid() != pod.uid() && self.handles.contains_key(other.uid()) && !ended(other);
        let statics = self.statics.values().map(Arc::as_ref);
        let others: Vec<&Pod> = pods.iter().map(Arc::as_ref).chain(statics).filter(here).collect();
        let node = admission::Node {
            milli_cpu: self.host.settings.machine_milli_cpu,
            memory_bytes: self.host.settings.machine_memory,
            max_pods: self.max_pods,
            pressures: &self.host.pressures.current(),
            unsafe_sysctls: &self.unsafe_sysctls,
            others: &others,
        };
        admission::refusal(pod, &node)
    }

    fn evict(&mut self, order: Order) {
        if let Some(handle) = self.handles.get(&order.uid) {
            *handle.eviction.lock() = Some(order.eviction);
            handle.wake.notify_one();
        }
    }

    fn runtime_event(&self, event: &RuntimeEvent) {
        if let Some(handle) = self.handles.get(&event.pod_uid) {
            handle.wake.notify_one();
        }
    }

    fn wake_all(&self) {
        for handle in self.handles.values() {
            handle.wake.notify_one();
        }
    }

    fn actor_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                let Some(handle) = self.handles.remove(&uid) else { return };
                if handle.is_static {
                    self.mirrors.running(&handle.key, false);
                    self.start_statics();
                } else if self.informer.get(&handle.key).is_some_and(|pod| pod.uid() == uid) {
                    self.over.insert(uid);
                }
            }
            Err(error) => tracing::error!(%error, "a pod's actor failed; the pod is taken up again at the next look"),
        }
    }

    /// Cleans away what is left of pods that are not this node's any more.
    async fn clean_orphans(&mut self) {
        let present = match purge::uids_present(&self.host).await {
            Ok(present) => present,
            Err(error) => {
                tracing::warn!(%error, "the runtime can't be asked for orphans");
                return;
            }
        };
        let known: HashSet<String> = self.informer.list().iter().map(|pod| pod.uid().to_owned()).collect();
        placement::retain(&self.host, |uid| known.contains(uid) || self.handles.contains_key(uid)).await;
        for uid in present {
            if known.contains(&uid) || self.handles.contains_key(&uid) || !self.orphans.insert(uid.clone()) {
                continue;
            }
            tracing::info!(uid, "removing what is left of a pod that is gone");
            let host = Arc::clone(&self.host);
            self.cleaning.spawn(async move {
                if let Err(error) = purge::pod(&host, &uid, None).await {
                    tracing::warn!(error, uid, "an orphan can't be removed yet");
                }
                uid
            });
        }
    }
}

fn key(pod: &Pod) -> ObjectKey {
    ObjectKey::new(pod.namespace(), pod.name())
}

async fn events(host: &Host) -> EventStream {
    loop {
        match host.runtime.events().await {
            Ok(events) => return events,
            Err(error) => {
                tracing::warn!(%error, "the runtime's events can't be had; trying again");
                tokio::time::sleep(EVENTS_RETRY).await;
            }
        }
    }
}
