//! The engine's own face, for callers in the same process that need more than CRI's words.

use crate::engine::Engine;
use crate::error::{blocking, from_failure};
use crate::options::{ContainerOptions, Owner, SandboxOptions};
use crate::records::{ContainerPhase, ContainerRecord, SandboxPhase};
use crate::sandboxes::has_network;
use pintle_cri::{ContainerConfig, CriError, CriResult, PodSandboxConfig, RuntimeEvent};
use pintle_linux::cgroup::{Limits, Stats};
use pintle_shim::protocol::Request;
use std::path::PathBuf;
use tokio::sync::broadcast;

/// What a caller may know of a container.
#[derive(Clone, Debug)]
pub struct ContainerView {
    pub id: String,
    pub sandbox_id: String,
    pub phase: ContainerPhase,
    /// 0 unless it runs.
    pub pid: i32,
    /// Nanoseconds since the epoch, 0 is not yet.
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub oom_killed: bool,
    /// Why it could not be started.
    pub message: String,
    pub cgroup: String,
    pub log_path: String,
}

impl Engine {
    /// Makes and starts a sandbox; returns its id.
    ///
    /// # Errors
    /// As `run_pod_sandbox` of CRI.
    pub async fn make_sandbox_with(&self, config: PodSandboxConfig, options: SandboxOptions) -> CriResult<String> {
        self.run_sandbox(config, "", options).await
    }

    /// Makes a container in a sandbox; returns its id.
    ///
    /// # Errors
    /// As `create_container` of CRI.
    pub async fn create_container_with(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        options: ContainerOptions,
    ) -> CriResult<String> {
        self.create(sandbox_id, config, options).await
    }

    /// Where a sandbox's network namespace is bound; none on the machine's network.
    pub fn netns_path(&self, sandbox_id: &str) -> CriResult<Option<PathBuf>> {
        let sandbox = self.sandbox(sandbox_id)?;
        let record = sandbox.record.lock();
        Ok(has_network(&record.config).then(|| self.netns_of(&record)))
    }

    /// What is known of a container, its id whole or a unique beginning of it.
    pub fn view(&self, id: &str) -> CriResult<ContainerView> {
        let container = self.container(id)?;
        let record = container.record.lock();
        Ok(view(&record))
    }

    /// All containers of one owner.
    pub fn views(&self, owner: Owner) -> Vec<ContainerView> {
        let containers: Vec<_> = self.containers.read().values().cloned().collect();
        let of_owner = containers.iter().filter(|c| self.owner_of(&c.record.lock().sandbox_id) == owner);
        of_owner.map(|c| view(&c.record.lock())).collect()
    }

    /// Ids of the sandboxes of one owner, those that have stopped too.
    pub fn sandboxes_of(&self, owner: Owner) -> Vec<String> {
        let sandboxes = self.sandboxes.read();
        let records = sandboxes.values().map(|s| s.record.lock());
        records
            .filter(|r| r.options.owner == owner && r.phase != SandboxPhase::Creating)
            .map(|r| r.id.clone())
            .collect()
    }

    /// Waits until a container has ended.
    pub async fn wait_container(&self, id: &str) -> CriResult<ContainerView> {
        let container = self.container(id)?;
        container.wait().await;
        let record = container.record.lock();
        Ok(view(&record))
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub async fn signal_container(&self, id: &str, signal: i32) -> CriResult<()> {
        let container = self.container(id)?;
        let (phase, sandbox_id) = {
            let record = container.record.lock();
            (record.phase, record.sandbox_id.clone())
        };
        if phase != ContainerPhase::Running {
            return Err(CriError::FailedPrecondition(format!("container {:?} is not running", container.id)));
        }
        let request = Request::Signal { container: container.id.clone(), signal, all: false };
        self.sandbox(&sandbox_id)?.shim()?.ask(request).await.map_err(from_failure)
    }

    /// Tells a container's terminal its size.
    pub async fn resize_container(&self, id: &str, columns: u16, rows: u16) -> CriResult<()> {
        let container = self.container(id)?;
        let sandbox_id = container.record.lock().sandbox_id.clone();
        let request = Request::Resize { container: container.id.clone(), columns, rows };
        self.sandbox(&sandbox_id)?.shim()?.ask(request).await.map_err(from_failure)
    }

    /// Stops all processes of a container where they are, or lets them go on (the freezer).
    pub async fn freeze_container(&self, id: &str, frozen: bool) -> CriResult<()> {
        let cgroup = self.container(id)?.record.lock().cgroup.clone();
        let cgroups = self.cgroups.clone();
        blocking(move || cgroups.freeze(&cgroup, frozen)).await
    }

    /// Whether its processes are stopped so; one that is not there is not.
    pub async fn is_frozen(&self, id: &str) -> bool {
        let Ok(container) = self.container(id) else { return false };
        let cgroup = container.record.lock().cgroup.clone();
        let cgroups = self.cgroups.clone();
        blocking(move || Ok::<_, pintle_linux::Error>(cgroups.is_frozen(&cgroup))).await.unwrap_or(false)
    }

    /// Changes a container's limits; what is zero or empty stays. Returns what the kernel could not do, in words.
    pub async fn update_limits(&self, id: &str, limits: Limits) -> CriResult<Vec<String>> {
        let cgroup = self.container(id)?.record.lock().cgroup.clone();
        let cgroups = self.cgroups.clone();
        blocking(move || cgroups.update(&cgroup, &limits)).await
    }

    /// What a running container uses.
    pub async fn usage(&self, id: &str) -> CriResult<Stats> {
        let cgroup = self.container(id)?.record.lock().cgroup.clone();
        let cgroups = self.cgroups.clone();
        blocking(move || cgroups.stats(&cgroup)).await
    }

    /// The processes of a container, in the machine's pid namespace.
    pub async fn processes(&self, id: &str) -> CriResult<Vec<i32>> {
        let cgroup = self.container(id)?.record.lock().cgroup.clone();
        let cgroups = self.cgroups.clone();
        blocking(move || cgroups.processes(&cgroup)).await
    }

    /// Whether all controllers are in one hierarchy of version 2.
    pub fn cgroups_are_v2(&self) -> bool {
        self.cgroups.version() == pintle_linux::cgroup::Version::V2
    }

    /// What happens to all sandboxes and containers, of every owner.
    pub fn all_events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    /// Whose a sandbox is; CRI's when it is gone.
    pub fn owner_of(&self, sandbox_id: &str) -> Owner {
        self.sandbox(sandbox_id).map(|s| s.record.lock().options.owner).unwrap_or_default()
    }
}

fn view(record: &ContainerRecord) -> ContainerView {
    ContainerView {
        id: record.id.clone(),
        sandbox_id: record.sandbox_id.clone(),
        phase: record.phase,
        pid: record.pid,
        started_at: record.started_at,
        finished_at: record.finished_at,
        exit_code: record.exit_code,
        oom_killed: record.reason == crate::cleanup::OOM_KILLED,
        message: record.message.clone(),
        cgroup: record.cgroup.clone(),
        log_path: record.log_path.clone(),
    }
}
