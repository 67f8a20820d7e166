//! Makes, stops, removes and shows containers.

use crate::engine::{Container, Engine};
use crate::error::{blocking, from_failure, internal};
use crate::ids::new_id;
use crate::options::{ContainerOptions, Owner};
use crate::ports::ImageInfo;
use crate::records::{ContainerPhase, ContainerRecord, ImageDefaults, SandboxPhase};
use crate::sandboxes::port_result;
use crate::spec;
use pintle_cri::{
    Container as CriContainer, ContainerConfig, ContainerFilter, ContainerState, ContainerStatus, CriError, CriResult,
    EventKind, LinuxContainerResources,
};
use pintle_linux::signal;
use pintle_shim::protocol::{PidNamespace, Request};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a killed container may take to be gone: one in uninterruptible sleep takes its time.
const KILL_TIMEOUT: Duration = Duration::from_secs(120);

impl Engine {
    pub(crate) async fn create(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        options: ContainerOptions,
    ) -> CriResult<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        let sandbox_record = sandbox.record.lock().clone();
        if sandbox_record.phase != SandboxPhase::Ready {
            return Err(CriError::FailedPrecondition(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        let image = match port_result(self.images.resolve(&config.image).await)? {
            Some(image) => image_defaults(&image),
            // Who brings the layer and says everything exactly needs nothing of an image that was removed since.
            None if options.snapshot.is_some() && options.exact => {
                crate::records::ImageDefaults { id: config.image.clone(), ..Default::default() }
            }
            None => return Err(missing_image(&config.image)),
        };
        let id = if options.id.is_empty() { new_id() } else { options.id.clone() };
        let parent = self.cgroup_parent(&sandbox.id, &sandbox_record.config);
        let record = ContainerRecord {
            cgroup: format!("{parent}/{id}"),
            id,
            sandbox_id: sandbox.id.clone(),
            created_at: self.now(),
            log_path: log_path(&sandbox_record.config.log_directory, &config.log_path),
            image,
            config,
            options,
            ..ContainerRecord::default()
        };
        spec::check(&record)?;
        // What cannot confine the container is told before there is one, as containerd does.
        self.seccomp_program(&record.config.security, record.options.seccomp.as_deref())?;
        self.init_of(&record)?;
        let container = self.reserve_container(record)?;
        match self.make_container(&container).await {
            Ok(()) => {
                self.tell(EventKind::ContainerCreated, &container.id, &sandbox.id);
                Ok(container.id.clone())
            }
            Err(error) => {
                let cgroup = container.record.lock().cgroup.clone();
                if let Err(e) = self.erase_container(&container.id, &cgroup).await {
                    tracing::warn!(container = %container.id, error = %e, "a half-made container is left");
                }
                self.containers.write().remove(&container.id);
                Err(error)
            }
        }
    }

    fn reserve_container(&self, record: ContainerRecord) -> CriResult<Arc<Container>> {
        let mut containers = self.containers.write();
        let same = |other: &ContainerRecord| {
            other.sandbox_id == record.sandbox_id && other.config.metadata == record.config.metadata
        };
        if let Some(other) = containers.values().find(|c| same(&c.record.lock())) {
            let name = format!("{}_{}", record.config.metadata.name, record.config.metadata.attempt);
            return Err(CriError::AlreadyExists(format!(
                "failed to reserve container name {name:?}: name {name:?} is reserved for {:?}",
                other.id
            )));
        }
        self.save_container(&record)?;
        let container = Container::new(record);
        containers.insert(container.id.clone(), Arc::clone(&container));
        Ok(container)
    }

    /// The writable layer, the cgroup and the directories that mounts need, so that starting is left to the shim.
    async fn make_container(&self, container: &Arc<Container>) -> CriResult<()> {
        let record = container.record.lock().clone();
        let snapshot = async {
            match &record.options.snapshot {
                Some(kept) => Ok(kept.clone()),
                None => self.images.prepare_snapshot(&record.id, &record.image.id).await,
            }
        };
        let (cgroups, cgroup) = (self.cgroups.clone(), record.cgroup.clone());
        let limits = spec::limits(&record)?;
        let prepare = blocking(move || cgroups.create(&cgroup, &limits));
        make_host_paths(&record)?;
        let (snapshot, image_mounts, warnings) = tokio::join!(snapshot, self.make_image_mounts(&record), prepare);
        for warning in warnings? {
            tracing::debug!(container = %record.id, "{warning}");
        }
        let (snapshot, image_mounts) = (port_result(snapshot)?, image_mounts?);
        self.change_container(container, |record| {
            record.snapshot = snapshot;
            record.image_mounts = image_mounts;
            record.phase = ContainerPhase::Created;
        })
    }

    pub(crate) async fn stop_by_id(&self, id: &str, timeout_seconds: u64) -> CriResult<()> {
        match self.container(id) {
            Ok(container) => self.stop(&container, timeout_seconds).await,
            Err(CriError::NotFound { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Asks a container to end, waits, then kills it. A second caller with a shorter timeout is not held up by the
    /// first.
    pub(crate) async fn stop(&self, container: &Arc<Container>, timeout_seconds: u64) -> CriResult<()> {
        if container.phase() != ContainerPhase::Running {
            return Ok(());
        }
        let sandbox_id = container.record.lock().sandbox_id.clone();
        if self.sandbox(&sandbox_id).and_then(|sandbox| sandbox.shim()).is_err() {
            self.end_without_shim(container).await;
            return Ok(());
        }
        if timeout_seconds > 0 {
            let stop = spec::stop_signal(&container.record.lock());
            self.signal(container, stop, false).await?;
            let wait = tokio::time::timeout(Duration::from_secs(timeout_seconds), container.wait());
            if wait.await.is_ok() {
                return Ok(());
            }
        }
        self.signal(container, libc::SIGKILL, true).await?;
        let gone = tokio::time::timeout(KILL_TIMEOUT, container.wait()).await;
        gone.map_err(|_| CriError::DeadlineExceeded(format!("killing container {:?}", container.id)))
    }

    /// A container that has ended meanwhile needs no signal.
    async fn signal(&self, container: &Arc<Container>, signal: i32, all: bool) -> CriResult<()> {
        let sandbox_id = container.record.lock().sandbox_id.clone();
        let Ok(shim) = self.sandbox(&sandbox_id).and_then(|sandbox| sandbox.shim()) else {
            return Ok(());
        };
        let request = Request::Signal { container: container.id.clone(), signal, all };
        match shim.ask(request).await {
            Err(_) if container.phase() != ContainerPhase::Running => Ok(()),
            // The exit is on its way.
            Err(failure) if failure.kind == pintle_shim::protocol::FailureKind::NotFound => Ok(()),
            other => other.map_err(from_failure),
        }
    }

    pub(crate) async fn remove(&self, id: &str) -> CriResult<()> {
        let container = match self.container(id) {
            Ok(container) => container,
            Err(CriError::NotFound { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        let _changing = container.changing.lock().await;
        self.stop(&container, 0).await?;
        let (cgroup, sandbox_id) = {
            let record = container.record.lock();
            (record.cgroup.clone(), record.sandbox_id.clone())
        };
        if let Ok(shim) = self.sandbox(&sandbox_id).and_then(|sandbox| sandbox.shim()) {
            // A shim that has gone has forgotten everything.
            let _ = shim.ask(Request::Forget { container: container.id.clone() }).await;
        }
        self.erase_container(&container.id, &cgroup).await?;
        if self.containers.write().remove(&container.id).is_some() {
            self.tell(EventKind::ContainerDeleted, &container.id, &sandbox_id);
        }
        Ok(())
    }

    pub(crate) fn status_of(&self, id: &str) -> CriResult<ContainerStatus> {
        let container = self.container(id)?;
        let record = container.record.lock();
        Ok(ContainerStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: state(record.phase),
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            exit_code: record.exit_code,
            image: record.config.image.clone(),
            image_ref: record.image.reference.clone(),
            image_id: record.image.id.clone(),
            reason: record.reason.clone(),
            message: record.message.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            mounts: record.config.mounts.clone(),
            log_path: record.log_path.clone(),
            resources: record.config.resources.clone(),
            user: record.user.clone(),
            pid: record.pid,
        })
    }

    pub(crate) fn container_list(&self, filter: &ContainerFilter) -> Vec<CriContainer> {
        let containers = self.containers.read();
        let records = containers.values().map(|c| c.record.lock());
        let shown = records.filter(|r| r.phase != ContainerPhase::Creating && matches_filter(r, filter));
        let shown = shown.filter(|r| self.owner_of(&r.sandbox_id) == Owner::Cri);
        shown
            .map(|r| CriContainer {
                id: r.id.clone(),
                sandbox_id: r.sandbox_id.clone(),
                metadata: r.config.metadata.clone(),
                image: r.config.image.clone(),
                image_ref: r.image.reference.clone(),
                state: state(r.phase),
                created_at: r.created_at,
                labels: r.config.labels.clone(),
                annotations: r.config.annotations.clone(),
            })
            .collect()
    }

    pub(crate) async fn update_resources(&self, id: &str, resources: LinuxContainerResources) -> CriResult<()> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        let record = container.record.lock().clone();
        if record.phase == ContainerPhase::Exited {
            return Err(CriError::FailedPrecondition(format!("container {:?} has exited", record.id)));
        }
        let limits = spec::resource_limits(&resources)?;
        let (cgroups, cgroup) = (self.cgroups.clone(), record.cgroup.clone());
        blocking(move || cgroups.update(&cgroup, &limits)).await?;
        self.change_container(&container, |record| merge(&mut record.config.resources, resources))
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> CriResult<()> {
        let container = self.container(id)?;
        let (phase, sandbox_id) = {
            let record = container.record.lock();
            (record.phase, record.sandbox_id.clone())
        };
        if phase != ContainerPhase::Running {
            return Err(CriError::FailedPrecondition("container is not running".to_owned()));
        }
        let shim = self.sandbox(&sandbox_id)?.shim()?;
        shim.ask(Request::ReopenLog { container: container.id.clone() }).await.map_err(from_failure)
    }
}

/// What an update does not say stays.
fn merge(old: &mut LinuxContainerResources, new: LinuxContainerResources) {
    let numbers = [
        (&mut old.cpu_period, new.cpu_period),
        (&mut old.cpu_quota, new.cpu_quota),
        (&mut old.cpu_shares, new.cpu_shares),
        (&mut old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        (&mut old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
        (&mut old.pids_limit, new.pids_limit),
    ];
    for (old, new) in numbers {
        if new != 0 {
            *old = new;
        }
    }
    for (old, new) in [(&mut old.cpuset_cpus, new.cpuset_cpus), (&mut old.cpuset_mems, new.cpuset_mems)] {
        if !new.is_empty() {
            *old = new;
        }
    }
    old.unified.extend(new.unified);
}

fn matches_filter(record: &ContainerRecord, filter: &ContainerFilter) -> bool {
    filter.id.as_ref().is_none_or(|id| record.id.starts_with(id.as_str()))
        && filter.state.is_none_or(|wanted| wanted == state(record.phase))
        && filter.sandbox_id.as_ref().is_none_or(|id| record.sandbox_id.starts_with(id.as_str()))
        && filter.labels.iter().all(|(k, v)| record.config.labels.get(k) == Some(v))
}

pub(crate) fn state(phase: ContainerPhase) -> ContainerState {
    match phase {
        ContainerPhase::Creating => ContainerState::Unknown,
        ContainerPhase::Created => ContainerState::Created,
        ContainerPhase::Running => ContainerState::Running,
        ContainerPhase::Exited => ContainerState::Exited,
    }
}

fn log_path(directory: &str, path: &str) -> String {
    if directory.is_empty() || path.is_empty() {
        return String::new();
    }
    Path::new(directory).join(path).to_string_lossy().into_owned()
}

/// A bind source that is missing becomes a directory, as containerd has it; and the log's directory is made.
fn make_host_paths(record: &ContainerRecord) -> CriResult<()> {
    let make = |path: &Path| {
        std::fs::create_dir_all(path).map_err(|e| internal(format_args!("failed to mkdir {:?}", path.display()), e))
    };
    for mount in record.config.mounts.iter().filter(|mount| mount.image.is_empty()) {
        let source = Path::new(&mount.host_path);
        if !source.exists() {
            make(source)?;
        }
    }
    match Path::new(&record.log_path).parent() {
        Some(parent) if !record.log_path.is_empty() => make(parent),
        _ => Ok(()),
    }
}

pub(crate) fn missing_image(name: &str) -> CriError {
    CriError::NotFound { what: "image", id: name.to_owned() }
}

fn image_defaults(image: &ImageInfo) -> ImageDefaults {
    let config = image.config.config().as_ref();
    let text = |value: Option<&Option<String>>| value.cloned().flatten().unwrap_or_default();
    let list = |value: Option<&Option<Vec<String>>>| value.cloned().flatten().unwrap_or_default();
    ImageDefaults {
        id: image.id.clone(),
        reference: image.digests.first().unwrap_or(&image.id).clone(),
        entrypoint: list(config.map(|c| c.entrypoint())),
        cmd: list(config.map(|c| c.cmd())),
        env: list(config.map(|c| c.env())),
        working_dir: text(config.map(|c| c.working_dir())),
        user: text(config.map(|c| c.user())),
        stop_signal: text(config.map(|c| c.stop_signal())),
    }
}

/// Checks that a signal is one, and a pid namespace one that a sandbox can give.
pub(crate) fn check_signal(name: &str) -> CriResult<()> {
    if name.is_empty() || signal::parse(name).is_some() {
        return Ok(());
    }
    Err(CriError::InvalidArgument(format!("unknown signal {name:?}")))
}

/// The namespace in the shim's words.
pub(crate) fn pid_namespace(mode: &pintle_cri::NamespaceMode) -> PidNamespace {
    match mode {
        pintle_cri::NamespaceMode::Pod => PidNamespace::Sandbox,
        pintle_cri::NamespaceMode::Container => PidNamespace::Own,
        pintle_cri::NamespaceMode::Node => PidNamespace::Host,
        pintle_cri::NamespaceMode::Target(id) => PidNamespace::Container(id.clone()),
    }
}
