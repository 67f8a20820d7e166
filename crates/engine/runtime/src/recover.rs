//! Brings the engine back to what is true after a restart: adopts what lives, cleans what was half made.

use crate::cleanup::end_unknown_shim;
use crate::engine::{Container, Engine, Sandbox};
use crate::error::OpenError;
use crate::ids::is_id;
use crate::records::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord};
use crate::sandboxes::has_network;
use pintle_cri::{CriError, CriResult};
use pintle_linux::netns;
use pintle_shim::protocol::{Answer, ContainerState, Request};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A shim answers at once; one that does not must not keep the others from coming back.
const STATE_TIMEOUT: Duration = Duration::from_secs(10);

impl Engine {
    /// # Errors
    /// Only when the records cannot be listed: a sandbox or container that cannot be brought back is reported in the
    /// log and counts as ended, it does not keep the others from coming back.
    pub(crate) async fn recover(&self) -> Result<(), OpenError> {
        let failed = |what: &str, source| OpenError::Io { what: what.to_owned(), source };
        let sandboxes = self.sandbox_folder.load::<SandboxRecord>().map_err(|e| failed("list sandboxes", e))?;
        let containers = self.container_folder.load::<ContainerRecord>().map_err(|e| failed("list containers", e))?;
        let mut broken = Vec::new();
        for (id, record) in containers {
            match record.filter(|r| r.id == id && r.phase != ContainerPhase::Creating) {
                Some(record) => {
                    self.containers.write().insert(id, Container::new(record));
                }
                None => broken.push(id),
            }
        }
        for (id, record) in sandboxes {
            let record =
                record.filter(|r| r.id == id).unwrap_or(SandboxRecord { id: id.clone(), ..Default::default() });
            self.sandboxes.write().insert(id, Sandbox::new(record));
        }
        let all: Vec<Arc<Sandbox>> = self.sandboxes.read().values().cloned().collect();
        for sandbox in &all {
            self.recover_sandbox(sandbox).await;
        }
        for id in broken {
            self.clear_half_made(&id).await;
        }
        self.clear_orphans().await;
        self.tell_network().await;
        Ok(())
    }

    async fn recover_sandbox(&self, sandbox: &Arc<Sandbox>) {
        let phase = sandbox.record.lock().phase;
        let outcome = match phase {
            SandboxPhase::Ready => {
                self.adopt(sandbox).await;
                Ok(())
            }
            SandboxPhase::Creating => {
                if let Err(error) = self.connect_shim(sandbox) {
                    tracing::debug!(sandbox = %sandbox.id, %error, "a half-made sandbox has no shim");
                }
                self.remove_sandbox(&sandbox.id).await
            }
            // Its containers ended before it was stopped.
            SandboxPhase::NotReady => {
                self.abandon(sandbox).await;
                Ok(())
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(sandbox = %sandbox.id, %error, "a half-made sandbox cannot be cleaned");
        }
    }

    /// Asks the shim what became of the containers. Without a shim they have ended.
    async fn adopt(&self, sandbox: &Arc<Sandbox>) {
        match self.ask_state(sandbox).await {
            Ok(states) => {
                for container in self.containers_of(&sandbox.id) {
                    let state = states.iter().find(|s| s.id == container.id);
                    self.adopt_container(&container, state);
                }
            }
            Err(error) => {
                tracing::info!(sandbox = %sandbox.id, %error, "a sandbox has ended while nobody watched");
                sandbox.shim.lock().take();
                self.abandon(sandbox).await;
            }
        }
    }

    async fn ask_state(&self, sandbox: &Arc<Sandbox>) -> CriResult<Vec<ContainerState>> {
        let shim = self.connect_shim(sandbox)?;
        let asked = tokio::time::timeout(STATE_TIMEOUT, shim.call(Request::State, Vec::new())).await;
        let asked = asked.map_err(|_| CriError::DeadlineExceeded("asking the sandbox's shim".to_owned()))?;
        let (answer, _) = asked.map_err(crate::error::from_failure)?;
        match answer {
            Answer::State(states) => Ok(states),
            other => Err(CriError::Internal(format!("the shim answered {other:?}"))),
        }
    }

    fn adopt_container(&self, container: &Arc<Container>, state: Option<&ContainerState>) {
        match state {
            Some(ContainerState { exit: Some(exit), .. }) => self.record_exit(container, exit, ""),
            Some(running) => {
                let mut record = container.record.lock();
                // It was started, and the engine ended before it could write that down.
                if record.phase == ContainerPhase::Created {
                    record.phase = ContainerPhase::Running;
                    record.started_at = self.now();
                }
                record.pid = running.pid;
            }
            None if container.phase() == ContainerPhase::Running => {
                let exit = pintle_shim::protocol::Exit {
                    container: container.id.clone(),
                    code: crate::cleanup::UNKNOWN_EXIT,
                    oom_killed: false,
                    finished_at: self.now(),
                };
                self.record_exit(container, &exit, "the container's process is not known any more");
            }
            None => {}
        }
    }

    /// A container whose record says that it was being made, or cannot be read.
    async fn clear_half_made(&self, id: &str) {
        let record = self.container_folder.load::<ContainerRecord>().unwrap_or_default();
        let record = record.into_iter().find(|(other, _)| other == id).and_then(|(_, record)| record);
        let cgroup = record.map(|r| r.cgroup).unwrap_or_default();
        if let Err(error) = self.erase_container(id, &cgroup).await {
            tracing::warn!(container = %id, %error, "a half-made container cannot be cleaned");
        }
    }

    /// Layers, namespaces and run directories of nobody; and containers whose sandbox is gone.
    async fn clear_orphans(&self) {
        let lost: Vec<(String, String)> = {
            let containers = self.containers.read();
            let records = containers.values().map(|c| c.record.lock());
            let sandboxes = self.sandboxes.read();
            let lost = records.filter(|r| !sandboxes.contains_key(&r.sandbox_id));
            lost.map(|r| (r.id.clone(), r.cgroup.clone())).collect()
        };
        for (id, cgroup) in lost {
            self.containers.write().remove(&id);
            report(&id, self.erase_container(&id, &cgroup).await);
        }
        for key in self.images.snapshots().await.unwrap_or_default() {
            let Some(id) = crate::image_mounts::owner(&key) else { continue };
            if !self.containers.read().contains_key(id) {
                report(id, crate::sandboxes::port_result(self.images.remove_snapshot(&key).await));
            }
        }
        for id in unknown(&self.config.run_dir.join("sandboxes"), |id| self.sandboxes.read().contains_key(id)) {
            report(&id, end_unknown_shim(&self.run_path("sandboxes", &id)).await);
        }
        for id in unknown(&self.config.run_dir.join("netns"), |id| self.sandboxes.read().contains_key(id)) {
            report(&id, netns::remove(&self.run_path("netns", &id)).map_err(crate::error::from_system));
        }
    }

    /// Addresses of sandboxes that are gone are free.
    async fn tell_network(&self) {
        let live: Vec<String> = {
            let sandboxes = self.sandboxes.read();
            let records = sandboxes.values().map(|s| s.record.lock());
            records.filter(|r| has_network(&r.config)).map(|r| r.id.clone()).collect()
        };
        if let Err(error) = self.network.retain(&live).await {
            tracing::warn!(%error, "the network cannot be told which sandboxes live");
        }
    }
}

fn report(id: &str, outcome: CriResult<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%id, %error, "a leftover cannot be cleaned");
    }
}

/// Names in a directory that are ids of nobody.
fn unknown(directory: &Path, known: impl Fn(&str) -> bool) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    names.filter(|name| is_id(name) && !known(name)).collect()
}
