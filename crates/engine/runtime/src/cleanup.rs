//! Takes sandboxes apart, whole or half made, and learns of shims that went.

use crate::engine::{Container, Engine, Sandbox};
use crate::error::{blocking, from_system, internal};
use crate::options::Network;
use crate::records::{ContainerPhase, SandboxPhase, remove_tree};
use crate::sandboxes::{has_network, pause_cgroup, port_result};
use pintle_cri::{CriResult, EventKind};
use pintle_linux::{mount, netns};
use pintle_shim::protocol::{Exit, Request};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long killed processes may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

impl Engine {
    /// Ends the shim, takes the network back, and removes what is in the run directory. Containers must have ended.
    /// Succeeds when all of that is gone already.
    pub(crate) async fn dismantle(&self, sandbox: &Arc<Sandbox>) -> CriResult<()> {
        let shim = sandbox.shim.lock().take();
        if let Some(shim) = shim {
            // When it is gone already, so much the better.
            let _ = shim.ask(Request::Shutdown).await;
        }
        let (config, network) = {
            let record = sandbox.record.lock();
            (record.config.clone(), record.options.network.clone())
        };
        if has_network(&config) && !matches!(network, Network::Sandbox(_)) {
            let path = self.run_path("netns", &sandbox.id);
            if network == Network::Connected {
                port_result(self.network.teardown(&sandbox.id, &path).await)?;
            }
            blocking(move || netns::remove(&path)).await?;
        }
        let run = self.run_path("sandboxes", &sandbox.id);
        let cgroups = self.cgroups.clone();
        let parent = self.cgroup_parent(&sandbox.id, &config);
        let pause = format!("{parent}/{}", pause_cgroup(&sandbox.id));
        blocking(move || {
            mount::unmount(&run.join("shm"))?;
            if cgroups.exists(&pause) {
                cgroups.kill_all(&pause, KILL_TIMEOUT)?;
                cgroups.remove(&pause)?;
            }
            remove_tree(&run).map_err(|e| pintle_linux::Error::new(format!("remove {}", run.display()), e))
        })
        .await
    }

    /// Kills what runs in a container's cgroup and removes it.
    pub(crate) async fn clear_cgroup(&self, cgroup: &str) -> CriResult<()> {
        if cgroup.is_empty() || !self.cgroups.exists(cgroup) {
            return Ok(());
        }
        let (cgroups, cgroup) = (self.cgroups.clone(), cgroup.to_owned());
        blocking(move || {
            cgroups.kill_all(&cgroup, KILL_TIMEOUT)?;
            cgroups.remove(&cgroup)
        })
        .await
    }

    /// A container ended, as its shim says.
    pub(crate) fn container_ended(&self, exit: &Exit) {
        if let Ok(container) = self.container(&exit.container) {
            self.record_exit(&container, exit, "");
        }
    }

    /// Writes down how a container ended; the first to know wins.
    pub(crate) fn record_exit(&self, container: &Arc<Container>, exit: &Exit, message: &str) {
        let (sandbox_id, saved) = {
            let mut record = container.record.lock();
            if record.phase == ContainerPhase::Exited {
                return;
            }
            record.phase = ContainerPhase::Exited;
            record.pid = 0;
            record.exit_code = exit.code;
            record.finished_at = exit.finished_at;
            // The end is told by whoever saw it, the start by when it was heard of: that may be later.
            record.started_at = record.started_at.min(record.finished_at);
            record.reason = exit_reason(exit).to_owned();
            record.message = message.to_owned();
            (record.sandbox_id.clone(), self.save_container(&record))
        };
        if let Err(error) = saved {
            // At the next start the exit file says the same.
            tracing::warn!(container = %container.id, %error, "the exit of a container is not saved");
        }
        container.ended.send_replace(true);
        self.tell(EventKind::ContainerStopped, &container.id, &sandbox_id);
        self.drop_cgroup(container);
    }

    /// A cgroup costs the kernel memory, and one that holds nobody is of no use. What cannot be removed now goes with
    /// the container's record.
    fn drop_cgroup(&self, container: &Container) {
        let (cgroups, cgroup) = (self.cgroups.clone(), container.record.lock().cgroup.clone());
        if cgroup.is_empty() {
            return;
        }
        drop(tokio::task::spawn_blocking(move || {
            cgroups.kill_all(&cgroup, KILL_TIMEOUT)?;
            cgroups.remove(&cgroup)
        }));
    }

    /// The connection to a shim ended. Unless we ended it, the shim was killed: nobody holds its containers any more,
    /// so they are killed too and the sandbox is no longer ready.
    pub(crate) async fn shim_closed(&self, sandbox_id: &str) {
        let Ok(sandbox) = self.sandbox(sandbox_id) else { return };
        if sandbox.shim.lock().take().is_none() {
            return;
        }
        tracing::warn!(sandbox = %sandbox_id, "the shim of a sandbox ended unexpectedly");
        self.abandon(&sandbox).await;
    }

    /// Records the ends of all containers of a sandbox that has lost its shim.
    pub(crate) async fn abandon(&self, sandbox: &Arc<Sandbox>) {
        for container in self.containers_of(&sandbox.id) {
            if container.phase() == ContainerPhase::Running {
                self.end_without_shim(&container).await;
            }
        }
        let was_ready = sandbox.record.lock().phase == SandboxPhase::Ready;
        if let Err(error) = self.mark_not_ready(sandbox) {
            tracing::warn!(sandbox = %sandbox.id, %error, "the state of a sandbox is not saved");
        }
        if was_ready {
            self.tell(EventKind::SandboxStopped, "", &sandbox.id);
        }
    }

    /// A container that no shim holds: its exit file says how it ended, else it is killed now.
    pub(crate) async fn end_without_shim(&self, container: &Arc<Container>) {
        let (cgroup, id) = {
            let record = container.record.lock();
            (record.cgroup.clone(), record.id.clone())
        };
        let had_processes = self.cgroups.processes(&cgroup).is_ok_and(|pids| !pids.is_empty());
        let killed = async {
            let (cgroups, cgroup) = (self.cgroups.clone(), cgroup.clone());
            blocking(move || cgroups.kill_all(&cgroup, KILL_TIMEOUT)).await
        };
        if let Err(error) = killed.await {
            tracing::warn!(container = %id, %error, "a container without shim cannot be killed");
        }
        match Exit::read(&self.exit_file(&id)) {
            Ok(Some(exit)) => self.record_exit(container, &exit, ""),
            _ => {
                let oom_killed = self.cgroups.oom_kills(&cgroup).is_ok_and(|kills| kills > 0);
                let code = if had_processes { 128 + libc::SIGKILL } else { UNKNOWN_EXIT };
                let exit = Exit { container: id, code, oom_killed, finished_at: self.now() };
                self.record_exit(container, &exit, "the process that holds the container ended unexpectedly");
            }
        }
    }

    pub(crate) fn exit_file(&self, container_id: &str) -> std::path::PathBuf {
        self.container_folder.of(container_id).join("exit.json")
    }

    /// Removes a container's cgroup, layer and record. Succeeds when they are gone.
    pub(crate) async fn erase_container(&self, id: &str, cgroup: &str) -> CriResult<()> {
        self.clear_cgroup(cgroup).await?;
        let (kept, image_mounts) = self.container(id).map_or((false, 0), |container| {
            let record = container.record.lock();
            let image_mounts = record.config.mounts.iter().filter(|mount| !mount.image.is_empty()).count();
            (record.options.snapshot.is_some(), image_mounts)
        });
        self.remove_image_mounts(id, image_mounts).await?;
        if !kept {
            port_result(self.images.remove_snapshot(id).await)?;
        }
        self.container_folder.remove(id).map_err(|e| internal(format_args!("remove the record of container {id}"), e))
    }
}

/// What containerd says of a container that it lost sight of.
pub(crate) const UNKNOWN_EXIT: i32 = 255;

/// The reason of a container that was killed for want of memory.
pub(crate) const OOM_KILLED: &str = "OOMKilled";

fn exit_reason(exit: &Exit) -> &'static str {
    match exit {
        Exit { oom_killed: true, .. } => OOM_KILLED,
        Exit { code: 0, .. } => "Completed",
        Exit { .. } => "Error",
    }
}

/// Ends a shim that no record knows of any more, by its socket.
pub(crate) async fn end_unknown_shim(run: &Path) -> CriResult<()> {
    let socket = run.join("shim.sock");
    let exits = Arc::new(crate::stdio::Exits::default());
    if let Ok(shim) = crate::shim_client::ShimClient::connect(&socket, exits, |_| ()) {
        // A shim that does not answer is killed with what it holds, by whoever owns its cgroups.
        let _ = shim.ask(Request::Shutdown).await;
    }
    mount::unmount(&run.join("shm")).map_err(from_system)?;
    remove_tree(run).map_err(|e| internal(format_args!("remove {}", run.display()), e))
}
