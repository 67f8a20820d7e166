//! Devices of plugins: who offers which, who has which, and what containers need to use them.
//!
//! Plugins register on the kubelet's socket (`registration`) and are followed from then on (`plugin`). What was given
//! out is written down with the plugin's answer, so that a container can be started again while its plugin is away.
//! Source: `pkg/kubelet/cm/devicemanager`.

mod book;
pub mod messages;
mod plugin;
mod pool;
mod registration;

use crate::checkpoint::CheckpointError;
use crate::cpu_set::CpuSet;
use crate::hints::Wishes;
use book::{Book, Entry};
use messages::{ContainerAllocateResponse, DevicePluginOptions};
use parking_lot::Mutex;
use plugin::Plugin;
use pool::{Devices as Known, Ids};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the devices of a plugin that went are still counted, as unhealthy.
const GRACE: Duration = Duration::from_secs(300);

/// Why a container does not get its devices, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("can't allocate unregistered device {0}")]
    Unregistered(String),
    #[error("no healthy devices present; cannot allocate unhealthy devices {0}")]
    Unhealthy(String),
    #[error("requested number of devices unavailable for {resource}. Requested: {requested}, Available: {available}")]
    Few { resource: String, requested: u64, available: usize },
    #[error("pod {pod:?} container {container:?} changed request for resource {resource:?} from {had} to {wanted}")]
    Changed { pod: String, container: String, resource: String, had: usize, wanted: u64 },
    #[error("{0}")]
    Said(String),
    #[error("{0}")]
    Kept(String),
}

/// How many devices of a resource there are, and how many are well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub capacity: usize,
    pub allocatable: usize,
}

/// One resource, from when its plugin registers, or was known to an earlier run.
struct Resource {
    plugin: Option<Arc<Plugin>>,
    devices: Known,
    /// When its plugin went.
    gone: Option<Instant>,
    /// Ends the following of its plugin.
    follow: CancellationToken,
}

#[derive(Default)]
struct Inner {
    resources: BTreeMap<String, Resource>,
    /// Were there once: the node says that it has none of them.
    ended: BTreeSet<String>,
    book: Book,
}

/// One container's wish for devices of one resource.
pub(crate) struct Wish<'a> {
    pub(crate) uid: &'a str,
    pub(crate) container: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) count: u64,
    /// Containers of the pod that end before this one begins.
    pub(crate) before: &'a [&'a str],
}

/// All devices of the node.
pub(crate) struct Devices {
    inner: Mutex<Inner>,
    path: PathBuf,
    /// Rung when there are more, fewer, or others.
    pub(crate) changed: Notify,
}

impl Devices {
    /// With what an earlier run gave out, as far as its file says so.
    ///
    /// # Errors
    /// The file is damaged.
    pub(crate) fn open(path: PathBuf) -> Result<Self, CheckpointError> {
        let (book, known) = Book::read(&path)?;
        let gone = || Resource {
            plugin: None,
            devices: Known::new(),
            gone: Some(Instant::now()),
            follow: CancellationToken::new(),
        };
        let resources = known.into_iter().map(|name| (name, gone())).collect();
        let inner = Inner { resources, ended: BTreeSet::new(), book };
        Ok(Self { inner: Mutex::new(inner), path, changed: Notify::new() })
    }

    /// Takes a plugin that says nothing of its options.
    pub(crate) async fn register_at(
        self: &Arc<Self>,
        name: &str,
        socket: &Path,
        stop: &CancellationToken,
    ) -> Result<(), DeviceError> {
        let plugin = Plugin::asked(socket).await?;
        self.follow(name.to_owned(), plugin, stop);
        Ok(())
    }

    /// Lets go of the plugin that listens there: its devices are not well until it, or another, comes back.
    pub(crate) fn forget(&self, name: &str, socket: &Path) {
        let plugin = {
            let inner = self.inner.lock();
            let Some(resource) = inner.resources.get(name) else { return };
            let Some(plugin) = resource.plugin.clone().filter(|plugin| plugin.socket() == socket) else { return };
            resource.follow.cancel();
            plugin
        };
        self.gone(name, &plugin);
    }

    fn register(self: &Arc<Self>, name: String, socket: &Path, options: DevicePluginOptions, stop: &CancellationToken) {
        self.follow(name, Plugin::new(socket, options), stop);
    }

    /// Takes a plugin and follows it until it goes, another takes its place, or `stop`.
    fn follow(self: &Arc<Self>, name: String, plugin: Plugin, stop: &CancellationToken) {
        let plugin = Arc::new(plugin);
        let follow = stop.child_token();
        {
            let mut inner = self.inner.lock();
            inner.ended.remove(&name);
            let devices = inner.resources.get(&name).map(|old| old.devices.clone()).unwrap_or_default();
            let new = Resource { plugin: Some(Arc::clone(&plugin)), devices, gone: None, follow: follow.clone() };
            if let Some(old) = inner.resources.insert(name.clone(), new) {
                old.follow.cancel();
            }
        }
        let devices = Arc::clone(self);
        tokio::spawn(async move {
            let tell = |told| devices.told(&name, &plugin, told);
            if let Some(ended) = follow.run_until_cancelled(plugin.follow(tell)).await {
                let why = ended.err().map(|error| error.to_string());
                tracing::info!(resource = name, why, "a device plugin is gone");
                devices.gone(&name, &plugin);
            }
        });
    }

    fn with_current(&self, name: &str, plugin: &Arc<Plugin>, change: impl FnOnce(&mut Resource)) {
        let mut inner = self.inner.lock();
        if let Some(resource) = inner.resources.get_mut(name)
            && resource.plugin.as_ref().is_some_and(|current| Arc::ptr_eq(current, plugin))
        {
            change(resource);
            self.keep(&inner);
        }
        drop(inner);
        self.changed.notify_one();
    }

    fn told(&self, name: &str, plugin: &Arc<Plugin>, devices: Known) {
        self.with_current(name, plugin, |resource| resource.devices = devices);
    }

    fn gone(&self, name: &str, plugin: &Arc<Plugin>) {
        self.with_current(name, plugin, |resource| {
            resource.gone = Some(Instant::now());
            resource.devices.values_mut().for_each(|state| state.healthy = false);
        });
    }

    fn keep(&self, inner: &Inner) {
        let known = inner.resources.iter().map(|(name, resource)| (name, pool::healthy(&resource.devices)));
        if let Err(error) = inner.book.write(&self.path, known) {
            tracing::warn!(%error, "what devices are given out can't be written down");
        }
    }

    /// What the node has of each resource.
    pub(crate) fn counts(&self) -> BTreeMap<String, Count> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let before = inner.resources.len();
        let ended = &mut inner.ended;
        inner.resources.retain(|name, resource| {
            let over = resource.gone.is_some_and(|at| at.elapsed() >= GRACE);
            if over {
                ended.insert(name.clone());
            }
            !over
        });
        if inner.resources.len() != before {
            self.keep(inner);
        }
        let count = |resource: &Resource| Count {
            capacity: resource.devices.len(),
            allocatable: pool::healthy(&resource.devices).len(),
        };
        let there = inner.resources.iter().map(|(name, resource)| (name.clone(), count(resource)));
        inner.ended.iter().map(|name| (name.clone(), Count::default())).chain(there).collect()
    }

    /// Whether plugins offer this resource, or did.
    pub(crate) fn knows(&self, resource: &str) -> bool {
        let inner = self.inner.lock();
        inner.resources.contains_key(resource) || inner.ended.contains(resource)
    }

    pub(crate) fn hints(&self, wish: &Wish<'_>, machine: &CpuSet) -> Wishes {
        let inner = self.inner.lock();
        if inner.book.get(wish.uid, wish.container, wish.resource).is_some() {
            return None;
        }
        let resource = inner.resources.get(wish.resource)?;
        let (free, reusable) = inner.free(wish, resource);
        pool::hints(&resource.devices, &free, &reusable, usize::try_from(wish.count).unwrap_or(usize::MAX), machine)
    }

    /// Gives a container devices; those that it has it keeps. Only one caller at a time.
    pub(crate) async fn give(&self, wish: &Wish<'_>, nodes: Option<&CpuSet>) -> Result<(), DeviceError> {
        let (plugin, choice, count) = {
            let inner = self.inner.lock();
            if let Some(entry) = inner.book.get(wish.uid, wish.container, wish.resource) {
                return entry.check(wish);
            }
            let unregistered = || DeviceError::Unregistered(wish.resource.to_owned());
            let resource = inner.resources.get(wish.resource).ok_or_else(unregistered)?;
            let (free, reusable) = inner.free(wish, resource);
            let available = free.union(&reusable).count();
            let count = usize::try_from(wish.count).unwrap_or(usize::MAX);
            if available < count {
                let resource = wish.resource.to_owned();
                return Err(DeviceError::Few { resource, requested: wish.count, available });
            }
            let unhealthy = || DeviceError::Unhealthy(wish.resource.to_owned());
            let plugin = resource.plugin.clone().filter(|_| resource.gone.is_none()).ok_or_else(unhealthy)?;
            (plugin, pool::choose(&resource.devices, &free, &reusable, count, nodes), count)
        };
        let preferred = plugin.preferred(&choice, count).await;
        let ids = pool::complete(choice, &preferred, count);
        let answer = plugin.allocate(&ids).await?;
        let mut inner = self.inner.lock();
        let nodes = |id: &String| {
            let resource = inner.resources.get(wish.resource);
            resource.and_then(|of| of.devices.get(id)).map(|state| state.nodes.clone()).unwrap_or_default()
        };
        let entry = Entry { ids: ids.iter().map(|id| (id.clone(), nodes(id))).collect(), answer };
        inner.book.insert(wish.uid, wish.container, wish.resource, entry);
        self.keep(&inner);
        Ok(())
    }

    /// What a container needs for its devices, after the plugins had their say.
    pub(crate) async fn of(&self, uid: &str, container: &str) -> Result<Vec<ContainerAllocateResponse>, DeviceError> {
        let had = {
            let inner = self.inner.lock();
            let had = inner.book.of(uid, container);
            let plugin = |name: &str| inner.resources.get(name).and_then(|resource| resource.plugin.clone());
            had.map(|(name, entry)| (plugin(name), entry.clone())).collect::<Vec<_>>()
        };
        let mut answers = Vec::with_capacity(had.len());
        for (plugin, entry) in had {
            if let Some(plugin) = plugin {
                plugin.pre_start(entry.ids.into_keys().collect()).await?;
            }
            answers.push(entry.answer);
        }
        Ok(answers)
    }

    /// The devices of a container by resource, with the nodes that they are near to.
    pub(crate) fn ids(&self, uid: &str, container: &str) -> Vec<(String, BTreeMap<String, CpuSet>)> {
        let inner = self.inner.lock();
        inner.book.of(uid, container).map(|(name, entry)| (name.to_owned(), entry.ids.clone())).collect()
    }

    /// All healthy devices by resource, with the nodes that they are near to.
    pub(crate) fn all(&self) -> Vec<(String, BTreeMap<String, CpuSet>)> {
        let inner = self.inner.lock();
        let healthy = |resource: &Resource| {
            let well = resource.devices.iter().filter(|(_, state)| state.healthy);
            well.map(|(id, state)| (id.clone(), state.nodes.clone())).collect()
        };
        inner.resources.iter().map(|(name, resource)| (name.clone(), healthy(resource))).collect()
    }

    /// Takes back what pods have that are not among those.
    pub(crate) fn retain(&self, stays: impl Fn(&str) -> bool) {
        let mut inner = self.inner.lock();
        if inner.book.retain(stays) {
            self.keep(&inner);
        }
    }

    /// Serves the socket on which plugins register, until `stop`.
    pub(crate) async fn serve(self: Arc<Self>, listener: registration::Listener, stop: CancellationToken) {
        registration::serve(listener, self, stop).await;
    }
}

pub(crate) use registration::{Listener, bind, check_plugin};

impl Inner {
    /// What is well and nobody's, and what containers had that end before.
    fn free(&self, wish: &Wish<'_>, resource: &Resource) -> (Ids, Ids) {
        let used = self.book.used(wish.resource, wish.uid, wish.before);
        let healthy = pool::healthy(&resource.devices);
        let before = wish.before.iter().filter_map(|name| self.book.get(wish.uid, name, wish.resource));
        let reusable: Ids =
            before.flat_map(|entry| entry.ids.keys()).filter(|id| !used.contains(*id)).cloned().collect();
        let free: Ids = healthy.difference(&used).filter(|id| !reusable.contains(*id)).cloned().collect();
        (free, reusable.intersection(&healthy).cloned().collect())
    }
}
