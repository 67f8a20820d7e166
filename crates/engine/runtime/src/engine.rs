//! The engine: what it is made of, and how its parts find a sandbox or container.

use crate::error::{OpenError, internal};
use crate::ports::{Images, SandboxNetwork};
use crate::records::{ContainerPhase, ContainerRecord, Folder, SandboxRecord};
use crate::shim_client::ShimClient;
use parking_lot::{Mutex, RwLock};
use pintle_clock::Clock;
use pintle_cri::{CriError, CriResult, EventKind, RuntimeEvent};
use pintle_linux::cgroup::Cgroups;
use rustix::fs::{MemfdFlags, SealFlags};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use tokio::sync::{broadcast, watch};

/// Events that a slow listener may be behind before it loses some.
const EVENT_BACKLOG: usize = 1024;

#[derive(Clone, Debug)]
pub struct Config {
    /// Records that survive a reboot, such as `/var/lib/pintle/runtime`.
    pub state_dir: PathBuf,
    /// Sockets and bound namespaces, on a filesystem that a reboot empties, such as `/run/pintle/runtime`.
    pub run_dir: PathBuf,
    /// The static `pintle-shim` program. It is copied to a sealed memory file: the file itself is never executed.
    pub shim_binary: PathBuf,
    /// The static `pintle-pause` program, which containers see as `/sbin/docker-init` when they ask for an init. Empty
    /// is none: those containers are refused.
    pub init_binary: PathBuf,
    /// Holds the cgroups of sandboxes whose configuration names no parent, such as `/pintle`.
    pub cgroup_root: String,
    /// Where seccomp profiles of kind `Localhost` are looked up when their name is not absolute.
    pub seccomp_dir: PathBuf,
}

/// Sandboxes and containers of this machine.
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) network: Arc<dyn SandboxNetwork>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cgroups: Cgroups,
    pub(crate) shim_program: File,
    /// What shims build the roots of containers in; none where this machine has no such thing.
    pub(crate) bare_mounts: Option<File>,
    pub(crate) sandbox_folder: Folder,
    pub(crate) container_folder: Folder,
    pub(crate) sandboxes: RwLock<HashMap<String, Arc<Sandbox>>>,
    pub(crate) containers: RwLock<HashMap<String, Arc<Container>>>,
    pub(crate) seccomp: crate::seccomp::Cache,
    pub(crate) events: broadcast::Sender<RuntimeEvent>,
    /// For tasks that must not keep the engine alive.
    pub(crate) this: Weak<Engine>,
}

pub(crate) struct Sandbox {
    pub id: String,
    pub record: Mutex<SandboxRecord>,
    pub shim: Mutex<Option<Arc<ShimClient>>>,
    /// Held by what changes the sandbox as a whole, so that a second request waits for the first.
    pub changing: tokio::sync::Mutex<()>,
}

pub(crate) struct Container {
    pub id: String,
    pub record: Mutex<ContainerRecord>,
    /// Whether it has ended; those who wait for that watch it.
    pub ended: watch::Sender<bool>,
    pub changing: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub fn new(record: SandboxRecord) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            shim: Mutex::new(None),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// The connection to the sandbox's shim.
    pub fn shim(&self) -> CriResult<Arc<ShimClient>> {
        let shim = self.shim.lock().clone();
        shim.ok_or_else(|| CriError::FailedPrecondition(format!("sandbox container {:?} is not running", self.id)))
    }
}

impl Container {
    pub fn new(record: ContainerRecord) -> Arc<Self> {
        let ended = watch::Sender::new(record.phase == ContainerPhase::Exited);
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            ended,
            changing: tokio::sync::Mutex::new(()),
        })
    }

    pub fn phase(&self) -> ContainerPhase {
        self.record.lock().phase
    }

    /// Resolves when the container has ended.
    pub async fn wait(&self) {
        // The sender is ours, so this cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl Engine {
    /// Opens the engine: finds what lives, cleans what was half made.
    ///
    /// # Errors
    /// A directory cannot be made or read, no cgroups are mounted, or the shim's program is not there. Needs root.
    pub async fn open(
        config: Config,
        images: Arc<dyn Images>,
        network: Arc<dyn SandboxNetwork>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, OpenError> {
        make_private(&config.state_dir)?;
        make_private(&config.run_dir)?;
        for name in ["rootfs", "netns", "sandboxes"] {
            make_private(&config.run_dir.join(name))?;
        }
        let folder = |name: &str| {
            let path = config.state_dir.join(name);
            Folder::open(path.clone())
                .map_err(|source| OpenError::Io { what: format!("open {}", path.display()), source })
        };
        let (sandbox_folder, container_folder) = (folder("sandboxes")?, folder("containers")?);
        let shim_program = sealed_copy(&config.shim_binary)?;
        let cgroups = Cgroups::detect()?;
        let bare_mounts = bare_mounts(&config.run_dir.join("rootfs"), &cgroups);
        let engine = Arc::new_cyclic(|this| Self {
            config,
            images,
            network,
            clock,
            cgroups,
            shim_program,
            bare_mounts,
            sandbox_folder,
            container_folder,
            sandboxes: RwLock::default(),
            containers: RwLock::default(),
            seccomp: crate::seccomp::Cache::default(),
            events: broadcast::Sender::new(EVENT_BACKLOG),
            this: Weak::clone(this),
        });
        engine.recover().await?;
        Ok(engine)
    }

    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.clock.unix_nanos()).unwrap_or(i64::MAX)
    }

    pub(crate) fn sandbox(&self, id: &str) -> CriResult<Arc<Sandbox>> {
        let found = find(&self.sandboxes.read(), id);
        found.ok_or_else(|| CriError::NotFound { what: "sandbox", id: id.to_owned() })
    }

    pub(crate) fn container(&self, id: &str) -> CriResult<Arc<Container>> {
        let found = find(&self.containers.read(), id);
        found.ok_or_else(|| CriError::NotFound { what: "container", id: id.to_owned() })
    }

    /// Containers of a sandbox, in no order.
    pub(crate) fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        let containers = self.containers.read();
        containers.values().filter(|c| c.record.lock().sandbox_id == sandbox_id).cloned().collect()
    }

    /// Changes a sandbox's record and saves it. Both under its lock, so that no older state is written over a newer.
    pub(crate) fn change_sandbox(&self, sandbox: &Sandbox, change: impl FnOnce(&mut SandboxRecord)) -> CriResult<()> {
        let mut record = sandbox.record.lock();
        change(&mut record);
        self.save_sandbox(&record)
    }

    /// The same of a container.
    pub(crate) fn change_container(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> CriResult<()> {
        let mut record = container.record.lock();
        change(&mut record);
        self.save_container(&record)
    }

    pub(crate) fn save_sandbox(&self, record: &SandboxRecord) -> CriResult<()> {
        let saved = self.sandbox_folder.save(&record.id, record);
        saved.map_err(|e| internal(format_args!("save the record of sandbox {}", record.id), e))
    }

    pub(crate) fn save_container(&self, record: &ContainerRecord) -> CriResult<()> {
        let saved = self.container_folder.save(&record.id, record);
        saved.map_err(|e| internal(format_args!("save the record of container {}", record.id), e))
    }

    /// Tells the listeners, if there are any.
    // flow: pod 15/16
    pub(crate) fn tell(&self, kind: EventKind, container_id: &str, sandbox_id: &str) {
        let pod_uid = self.sandbox(sandbox_id).map(|s| s.record.lock().config.metadata.uid.clone()).unwrap_or_default();
        let event =
            RuntimeEvent { kind, container_id: container_id.to_owned(), sandbox_id: sandbox_id.to_owned(), pod_uid };
        // Nobody listens.
        let _ = self.events.send(event);
    }

    pub(crate) fn run_path(&self, kind: &str, id: &str) -> PathBuf {
        self.config.run_dir.join(kind).join(id)
    }
}

/// By the whole id, or by the only one that begins so.
fn find<T>(all: &HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = all.get(id) {
        return Some(Arc::clone(found));
    }
    if id.is_empty() {
        return None;
    }
    let mut matching = all.iter().filter(|(key, _)| key.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, found)), None) => Some(Arc::clone(found)),
        _ => None,
    }
}

fn make_private(path: &Path) -> Result<(), OpenError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| OpenError::Io { what: format!("create {}", path.display()), source })
}

/// The mounts that the start of a container needs by their paths: where its root is put together, /proc, and cgroups.
fn bare_mounts(rootfs: &Path, cgroups: &Cgroups) -> Option<File> {
    let hierarchies = cgroups.hierarchies().iter().map(|h| h.mount.as_path());
    let paths: Vec<&Path> = [rootfs, Path::new("/proc")].into_iter().chain(hierarchies).collect();
    let made = pintle_linux::bare_mounts::make(&paths, rootfs);
    made.inspect_err(|error| tracing::info!(%error, "every container starts from a copy of all mounts")).ok()
}

/// Copies a program into memory that nothing can change any more. A container can get hold of the program that starts
/// it (by `#!/proc/self/exe`), so that must never be a file of the host (CVE-2019-5736).
fn sealed_copy(path: &Path) -> Result<File, OpenError> {
    let failed =
        |what: &str, source: std::io::Error| OpenError::Io { what: format!("{what} {}", path.display()), source };
    let mut from = File::open(path).map_err(|e| failed("open the shim", e))?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("pintle-shim", flags | MemfdFlags::EXEC)
        // Before Linux 6.3 there is no such flag, and memory files are executable always.
        .or_else(|_| rustix::fs::memfd_create("pintle-shim", flags))
        .map_err(|e| failed("make a memory file for", e.into()))?;
    let mut memory = File::from(memory);
    std::io::copy(&mut from, &mut memory).map_err(|e| failed("copy", e))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(|e| failed("seal the copy of", e.into()))?;
    Ok(memory)
}
