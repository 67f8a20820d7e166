//! Joins devices, processors and memory: a pod gets all that its containers ask for, or nothing and a reason.

use crate::checkpoint::CheckpointError;
use crate::cpu_set::CpuSet;
use crate::cpus::{CpuError, Cpus};
use crate::devices::messages::{CDIDevice, DeviceMount, DeviceSpec};
use crate::devices::{Count, DeviceError, Devices, Listener, Wish, bind, check_plugin};
use crate::hints::{self, Wishes};
use crate::layout::{Layout, MAX_NODES};
use crate::memory::{self, Memory};
use crate::options::{BadOption, Options, Scope, TopologyPolicy};
use crate::pod_resources::{self, PodNames};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// When a container runs, next to the others of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before all that come after it in the list.
    Init,
    /// From its turn on until the pod ends.
    Sidecar,
    Regular,
}

/// What a container asks for.
#[derive(Clone, Debug)]
pub struct ContainerAsk {
    pub name: String,
    pub phase: Phase,
    /// Thousandths of a processor.
    pub milli_cpu: u64,
    pub memory_bytes: u64,
    /// By resource, as limits have it; what no plugin ever offered is not looked at.
    pub devices: BTreeMap<String, u64>,
}

/// What a pod asks for: its containers in the order in which they start.
#[derive(Clone, Debug)]
pub struct PodAsk {
    pub uid: String,
    /// Only these get processors and memory of their own.
    pub guaranteed: bool,
    pub containers: Vec<ContainerAsk>,
}

/// Why a node does not take a pod: what the pod's status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

/// What a container is made with, beside what its pod says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Lists of processors and memory nodes; empty is all.
    pub cpus: String,
    /// Whether nobody else gets those processors.
    pub owns_cpus: bool,
    pub memory_nodes: String,
    pub envs: BTreeMap<String, String>,
    pub mounts: Vec<DeviceMount>,
    pub devices: Vec<DeviceSpec>,
    pub annotations: BTreeMap<String, String>,
    /// Names of devices in the container device interface.
    pub cdi: Vec<String>,
}

/// Why nothing can be given out.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Option(#[from] BadOption),
}

/// What of the machine is given to whom.
pub struct Placement {
    pub(crate) layout: Arc<Layout>,
    topology: TopologyPolicy,
    scope: Scope,
    pub(crate) cpus: Option<Mutex<Cpus>>,
    pub(crate) memory: Option<Mutex<Memory>>,
    pub(crate) devices: Arc<Devices>,
    /// One pod at a time is admitted.
    turn: tokio::sync::Mutex<()>,
}

const CPU_FILE: &str = "cpu_manager_state";
const MEMORY_FILE: &str = "memory_manager_state";
const DEVICE_FILE: &str = "kubelet_internal_checkpoint";

impl Placement {
    /// With what an earlier run gave out, from files in `folder`. `layout` is asked only when a policy needs it.
    ///
    /// # Errors
    /// Options that contradict each other or the machine; damaged files.
    pub fn open(options: &Options, layout: impl FnOnce() -> Layout, folder: &Path) -> Result<Self, OpenError> {
        let idle = options.cpu.is_none() && !options.memory && options.topology == TopologyPolicy::None;
        let layout = Arc::new(if idle { Layout::default() } else { layout() });
        if !idle && layout.nodes.len() > MAX_NODES {
            let count = layout.nodes.len();
            let why = format!("unsupported on machines with more than {MAX_NODES} NUMA Nodes: this one has {count}");
            return Err(BadOption(why).into());
        }
        Ok(Self {
            cpus: cpus(options, &layout, folder.join(CPU_FILE))?.map(Mutex::new),
            memory: memory(options, &layout, folder.join(MEMORY_FILE))?.map(Mutex::new),
            devices: Arc::new(Devices::open(folder.join(DEVICE_FILE))?),
            topology: options.topology,
            scope: options.scope,
            layout,
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Gives a pod what it asks for; what it has already it keeps.
    ///
    /// # Errors
    /// Then it has nothing.
    pub async fn admit(&self, pod: &PodAsk) -> Result<(), Refusal> {
        let admitting = Admitting { placement: self, pod };
        let wants_nothing = pod.containers.iter().all(|c| {
            self.processors(pod, c).is_none() && self.bytes(pod, c).is_none() && admitting.resources(c).next().is_none()
        });
        if wants_nothing {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let done = admitting.run().await;
        if done.is_err() {
            self.release(&pod.uid);
        }
        done
    }

    /// Takes back what a pod has; says whether others share more processors now.
    pub fn release(&self, uid: &str) -> bool {
        self.retain(|other| other != uid)
    }

    /// Takes back what pods have that are not among those; says whether others share more processors now.
    pub fn retain(&self, stays: impl Fn(&str) -> bool) -> bool {
        self.devices.retain(&stays);
        if let Some(memory) = &self.memory {
            memory.lock().retain(&stays);
        }
        self.cpus.as_ref().is_some_and(|cpus| cpus.lock().retain(&stays))
    }

    /// The processors that containers without their own share; none where nobody has his own.
    pub fn shared_cpus(&self) -> Option<String> {
        self.cpus.as_ref().map(|cpus| cpus.lock().shared().to_string())
    }

    /// The processors that a container has for itself.
    pub fn own_cpus(&self, uid: &str, container: &str) -> Option<String> {
        self.cpus.as_ref()?.lock().of(uid, container).map(CpuSet::to_string)
    }

    /// Whether a container of a pod has processors for itself.
    pub fn has_own_cpus(&self, uid: &str) -> bool {
        self.cpus.as_ref().is_some_and(|cpus| cpus.lock().has(uid))
    }

    /// What a container is made with.
    ///
    /// # Errors
    /// A plugin that wants to prepare its devices and can't.
    pub async fn container(&self, uid: &str, container: &str) -> Result<Given, DeviceError> {
        let memory_nodes = self.memory.as_ref().and_then(|memory| memory.lock().of(uid, container));
        let own = self.own_cpus(uid, container);
        let mut given = Given {
            owns_cpus: own.is_some(),
            cpus: own.or_else(|| self.shared_cpus()).unwrap_or_default(),
            memory_nodes: memory_nodes.map(|(nodes, _)| nodes.to_string()).unwrap_or_default(),
            ..Given::default()
        };
        for answer in self.devices.of(uid, container).await? {
            given.envs.extend(answer.envs);
            given.mounts.extend(answer.mounts);
            given.devices.extend(answer.devices);
            given.annotations.extend(answer.annotations);
            given.cdi.extend(answer.cdi_devices.into_iter().map(|CDIDevice { name }| name));
        }
        given.mounts.dedup();
        given.devices.dedup();
        Ok(given)
    }

    /// How many devices the node has, by resource.
    pub fn counts(&self) -> BTreeMap<String, Count> {
        self.devices.counts()
    }

    /// Returns when there are more, fewer or other devices than before; for one who waits.
    pub async fn changed(&self) {
        self.devices.changed.notified().await;
    }

    /// Opens the socket on which device plugins register, and serves it until `stop`.
    ///
    /// # Errors
    /// The socket cannot be made, or another kubelet has it.
    pub fn serve_plugins(
        &self,
        folder: &Path,
        stop: CancellationToken,
    ) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
        let listener: Listener = bind(folder)?;
        Ok(Arc::clone(&self.devices).serve(listener, stop))
    }

    /// Checks what a device plugin says of itself that was found by its socket: its resource, and its versions.
    ///
    /// # Errors
    /// What upstream's kubelet says to such a plugin.
    pub fn check_plugin(&self, resource: &str, versions: &[String]) -> Result<(), String> {
        check_plugin(resource, versions)
    }

    /// Takes a device plugin that was found by its socket, and follows it until `stop`.
    ///
    /// # Errors
    /// It does not answer at `endpoint`.
    pub async fn register_plugin(
        &self,
        resource: &str,
        endpoint: &Path,
        stop: &CancellationToken,
    ) -> Result<(), DeviceError> {
        self.devices.register_at(resource, endpoint, stop).await
    }

    /// Lets go of such a plugin, unless another has its place: its devices are not well any more.
    pub fn forget_plugin(&self, resource: &str, endpoint: &Path) {
        self.devices.forget(resource, endpoint);
    }

    /// Opens the socket on which monitors ask who has what, and serves it until `stop`.
    ///
    /// # Errors
    /// The socket cannot be made, or another kubelet has it.
    pub fn serve_pod_resources(
        self: &Arc<Self>,
        folder: &Path,
        pods: impl Fn() -> Vec<PodNames> + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
        pod_resources::serve(Arc::clone(self), folder, pods, stop)
    }

    /// How many processors a container gets for itself: only a whole number of them.
    fn processors(&self, pod: &PodAsk, container: &ContainerAsk) -> Option<usize> {
        let whole = container.milli_cpu > 0 && container.milli_cpu.is_multiple_of(1000);
        let count = usize::try_from(container.milli_cpu / 1000).ok()?;
        (self.cpus.is_some() && pod.guaranteed && whole).then_some(count)
    }

    fn bytes(&self, pod: &PodAsk, container: &ContainerAsk) -> Option<u64> {
        (self.memory.is_some() && pod.guaranteed && container.memory_bytes > 0).then_some(container.memory_bytes)
    }
}

fn cpus(options: &Options, layout: &Arc<Layout>, path: PathBuf) -> Result<Option<Cpus>, OpenError> {
    let Some(policy) = options.cpu else { return Ok(None) };
    let few = || BadOption("the reserved processors are more than the machine has".to_owned());
    let reserved = match &options.reserved_cpus {
        Some(named) => named.clone(),
        None => Cpus::reserve(layout, options.reserved.milli_cpu).ok_or_else(few)?,
    };
    if reserved.is_empty() {
        let why = "the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero";
        return Err(BadOption(why.to_owned()).into());
    }
    if !reserved.is_subset(&layout.all()) {
        return Err(few().into());
    }
    Ok(Some(Cpus::open(Arc::clone(layout), policy, reserved, path)?))
}

fn memory(options: &Options, layout: &Layout, path: PathBuf) -> Result<Option<Memory>, OpenError> {
    if !options.memory {
        return Ok(None);
    }
    if options.reserved_memory.is_empty() {
        let why = "the memory manager policy Static needs memory to be reserved (--reserved-memory)";
        return Err(BadOption(why.to_owned()).into());
    }
    memory::check_reserved(&options.reserved_memory, options.reserved.memory_bytes)?;
    Ok(Some(Memory::open(&layout.nodes, &options.reserved_memory, path)?))
}

/// One pod, while it is its turn.
struct Admitting<'a> {
    placement: &'a Placement,
    pod: &'a PodAsk,
}

fn unexpected(error: impl std::fmt::Display) -> Refusal {
    Refusal {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: format!("Allocate failed due to {error}, which is unexpected"),
    }
}

fn cpu_refusal(error: CpuError) -> Refusal {
    match error {
        CpuError::Alignment(..) => Refusal { reason: "SMTAlignmentError".to_owned(), message: error.to_string() },
        other => unexpected(other),
    }
}

impl Admitting<'_> {
    async fn run(&self) -> Result<(), Refusal> {
        let whole = match self.placement.scope {
            Scope::Pod if self.placement.topology != TopologyPolicy::None => Some(self.nodes(&self.together(), &[])?),
            _ => None,
        };
        let mut before = Vec::new();
        for container in &self.pod.containers {
            let nodes = match &whole {
                Some(nodes) => nodes.clone(),
                None => self.nodes(container, &before)?,
            };
            self.give(container, nodes.as_ref(), &before).await?;
            if container.phase == Phase::Init {
                before.push(container.name.as_str());
            }
        }
        Ok(())
    }

    fn resources<'b>(&'b self, container: &'b ContainerAsk) -> impl Iterator<Item = (&'b str, u64)> {
        let known = container.devices.iter().filter(|(name, count)| **count > 0 && self.placement.devices.knows(name));
        known.map(|(name, count)| (name.as_str(), *count))
    }

    /// The whole pod as if it were one container: what its containers need at a time.
    fn together(&self) -> ContainerAsk {
        let names = self.pod.containers.iter().flat_map(|c| c.devices.keys());
        let most = |of: &dyn Fn(&ContainerAsk) -> u64| {
            let (mut lasting, mut most) = (0, 0);
            for container in &self.pod.containers {
                if container.phase == Phase::Init {
                    most = most.max(lasting + of(container));
                } else {
                    lasting += of(container);
                }
            }
            lasting.max(most)
        };
        let cpus = |c: &ContainerAsk| self.placement.processors(self.pod, c).map_or(0, |n| n as u64 * 1000);
        ContainerAsk {
            name: String::new(),
            phase: Phase::Regular,
            milli_cpu: most(&cpus),
            memory_bytes: most(&|c| c.memory_bytes),
            devices: names.map(|name| (name.clone(), most(&|c| c.devices.get(name).copied().unwrap_or(0)))).collect(),
        }
    }

    /// The memory nodes that suit all resources of a container.
    fn nodes(&self, container: &ContainerAsk, before: &[&str]) -> Result<Option<CpuSet>, Refusal> {
        let placement = self.placement;
        if placement.topology == TopologyPolicy::None {
            return Ok(None);
        }
        let machine: CpuSet = placement.layout.nodes.keys().copied().collect();
        let (uid, name) = (self.pod.uid.as_str(), container.name.as_str());
        let mut wishes: Vec<Wishes> = Vec::new();
        for (resource, count) in self.resources(container) {
            let wish = Wish { uid, container: name, resource, count, before };
            wishes.push(placement.devices.hints(&wish, &machine));
        }
        if let (Some(cpus), Some(count)) = (&placement.cpus, placement.processors(self.pod, container)) {
            let cpus = cpus.lock();
            let reusable = cpus.reusable(uid, before);
            wishes.push(cpus.of(uid, name).is_none().then(|| cpus.hints(count, &reusable)));
        }
        if let (Some(memory), Some(bytes)) = (&placement.memory, placement.bytes(self.pod, container)) {
            let memory = memory.lock();
            wishes.push(memory.of(uid, name).is_none().then(|| memory.hints(uid, bytes)));
        }
        let (best, admitted) = hints::merge(placement.topology, &machine, wishes);
        if admitted {
            return Ok(best.nodes);
        }
        Err(Refusal {
            reason: "TopologyAffinityError".to_owned(),
            message: "Resources cannot be allocated with Topology locality".to_owned(),
        })
    }

    async fn give(&self, container: &ContainerAsk, nodes: Option<&CpuSet>, before: &[&str]) -> Result<(), Refusal> {
        let placement = self.placement;
        let (uid, name) = (self.pod.uid.as_str(), container.name.as_str());
        for (resource, count) in self.resources(container) {
            let wish = Wish { uid, container: name, resource, count, before };
            placement.devices.give(&wish, nodes).await.map_err(unexpected)?;
        }
        if let (Some(cpus), Some(count)) = (&placement.cpus, placement.processors(self.pod, container)) {
            let mut cpus = cpus.lock();
            let reusable = cpus.reusable(uid, before);
            cpus.give(uid, name, count, nodes, &reusable).map_err(cpu_refusal)?;
        }
        if let (Some(memory), Some(bytes)) = (&placement.memory, placement.bytes(self.pod, container)) {
            let passing = container.phase == Phase::Init;
            memory.lock().give((uid, name), bytes, nodes, passing).map_err(unexpected)?;
        }
        Ok(())
    }
}
