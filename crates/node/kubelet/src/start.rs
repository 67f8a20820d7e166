//! Starts one container: image, configuration, creation, start, hook after the start.

use crate::container_config::Making;
use crate::container_status::StartFailure;
use crate::duration;
use crate::memory::Memory;
use crate::observed::Observed;
use crate::plan::KillReason;
use crate::reference::{ContainerKind, pod_text};
use crate::terminate::{Killing, kill_container};
use crate::volumes::Paths;
use crate::{images, lifecycle};
use jiff::Timestamp;
use pintle_cri::{ContainerState, CriError, PodSandboxConfig};
use pintle_types::k8s::api::core::v1::{Container, Pod};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The sandbox that containers are started in.
pub struct Sandbox {
    pub id: String,
    pub config: PodSandboxConfig,
    pub ips: Vec<String>,
}

/// One container to start.
pub struct Starting<'a> {
    pub memory: &'a Memory,
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub sandbox: &'a Sandbox,
    pub kind: ContainerKind,
    pub container: &'a Container,
    pub volumes: &'a Paths,
    /// The container that an ephemeral one looks at.
    pub target: Option<String>,
    /// Ends what takes long: the pod is to be stopped.
    pub halt: &'a CancellationToken,
}

fn failure(reason: &str, message: impl ToString) -> StartFailure {
    StartFailure { reason: reason.to_owned(), message: message.to_string() }
}

impl Starting<'_> {
    /// How long the container must wait still before it is started again, and the whole delay.
    pub fn back_off(&self) -> Option<(Duration, StartFailure)> {
        let ended = self.ended_at()?;
        let now = self.memory.host.clock.now();
        let mut crashes = self.memory.crashes.lock();
        let Some((left, whole)) = crashes.remaining(&self.container.name, ended, now) else {
            crashes.next(&self.container.name, ended, now);
            return None;
        };
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            duration::go(whole),
            self.container.name,
            pod_text(self.pod)
        );
        Some((left, failure("CrashLoopBackOff", message)))
    }

    /// When the container ended last. One that was made and never ran has failed to start; one that is killed now
    /// because of its probes waits for the one before it.
    fn ended_at(&self) -> Option<Timestamp> {
        let newest = self.observed.container(&self.container.name)?;
        let nanoseconds = match newest.state {
            ContainerState::Created => newest.created_at,
            _ => self.observed.ended(&self.container.name)?.finished_at,
        };
        Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
    }

    pub fn event(&self, warning: bool, reason: &str, message: impl Into<String>) {
        let events = &self.memory.host.events;
        events.container(self.pod, self.kind, &self.container.name, warning, reason, message.into());
    }

    /// Starts it. A failure has been told in an event by then.
    pub async fn run(&self) -> Result<(), StartFailure> {
        let (measures, kind) = (&self.memory.host.measures, self.kind.label());
        measures.started_containers.with(&[kind]).inc();
        let started = self.start().await;
        if let Err(failure) = &started
            && !self.halt.is_cancelled()
        {
            measures.started_containers_errors.with(&[kind, &failure.reason]).inc();
        }
        started
    }

    // flow: pod 13/16
    async fn start(&self) -> Result<(), StartFailure> {
        let runtime = &self.memory.host.runtime;
        let pulled = tokio::select! {
            pulled = images::ensure(self.memory, self.pod, self.kind, self.container) => pulled,
            () = self.halt.cancelled() => return Err(failure("ContainerCreating", "")),
        };
        let image = pulled.inspect_err(|f| self.event(true, "Failed", format!("Error: {}", f.reason)))?;
        let image_volumes = tokio::select! {
            pulled = images::ensure_volumes(self.memory, self.pod, self.container) => pulled,
            () = self.halt.cancelled() => return Err(failure("ContainerCreating", "")),
        };
        let image_volumes =
            image_volumes.inspect_err(|f| self.event(true, "Failed", format!("Error: {}", f.reason)))?;
        let making = Making {
            host: &self.memory.host,
            pod: self.pod,
            container: self.container,
            image: &image,
            attempt: self.attempt(),
            ips: &self.sandbox.ips,
            volumes: self.volumes,
            image_volumes,
            target: self.target.clone(),
        };
        let Some(config) = self.halt.run_until_cancelled(making.config()).await else {
            return Err(failure("ContainerCreating", ""));
        };
        let config = config.inspect_err(|f| self.event(true, "Failed", format!("Error: {}", f.message)))?;
        self.make_log_directory().map_err(|e| failure("CreateContainerError", e))?;
        let id = runtime.create_container(&self.sandbox.id, config, &self.sandbox.config).await;
        let id = id.map_err(|e| self.refused("CreateContainerError", &e))?;
        self.event(false, "Created", "Container created");
        runtime.start_container(&id).await.map_err(|e| self.refused("RunContainerError", &e))?;
        self.event(false, "Started", "Container started");
        self.post_start(&id).await
    }

    fn refused(&self, reason: &str, error: &CriError) -> StartFailure {
        self.event(true, "Failed", format!("Error: {error}"));
        failure(reason, error)
    }

    fn log_directory(&self) -> std::path::PathBuf {
        self.memory.host.log_dir(self.pod).join(&self.container.name)
    }

    fn make_log_directory(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(self.log_directory())
    }

    /// One more than the last; when the runtime has none, its log files tell.
    fn attempt(&self) -> u32 {
        if let Some(status) = self.observed.container(&self.container.name) {
            return status.metadata.attempt + 1;
        }
        let files = std::fs::read_dir(self.log_directory()).into_iter().flatten().flatten();
        let attempts = files.filter_map(|f| f.file_name().to_string_lossy().split('.').next()?.parse::<u32>().ok());
        attempts.max().map_or(0, |last| last.saturating_add(1))
    }

    async fn post_start(&self, id: &str) -> Result<(), StartFailure> {
        let Some(hook) = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
        let host = &self.memory.host;
        let ran = tokio::select! {
            ran = lifecycle::run(host, self.pod, self.container, id, &self.sandbox.ips, hook) => ran,
            () = self.halt.cancelled() => return Ok(()),
        };
        let Err(hook_error) = ran else { return Ok(()) };
        tracing::debug!(
            pod = pod_text(self.pod),
            container = self.container.name,
            error = hook_error,
            "a postStart hook failed"
        );
        self.event(true, "FailedPostStartHook", "PostStartHook failed");
        let killing = Killing {
            memory: self.memory,
            pod: self.pod,
            spec: Some(self.container),
            kind: self.kind,
            id,
            name: &self.container.name,
            ips: &self.sandbox.ips,
            message: "FailedPostStartHook",
            grace: crate::terminate::grace_period(self.pod, Some(self.container), KillReason::Changed),
        };
        if let Err(error) = kill_container(&killing).await {
            tracing::warn!(%error, pod = pod_text(self.pod), "a container whose postStart hook failed can't be stopped");
        }
        Err(failure("PostStartHookError", hook_error))
    }
}
